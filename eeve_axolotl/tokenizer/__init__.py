"""Extending a tokenizer: from a corpus to new tokens that it really produces (card, step by step).

settings.py  the keys of the YAML
build.py     the whole command: learn, verify, write the directory and its manifest
base.py      the base tokenizer: finding it, adding tokens and merges to it; tekken.py reads Mistral's
reloading.py the base as its own tokenizer.json says, and the written one loaded again and compared with it
spelling.py  how a vocabulary spells text, and how people read it

words/       what a word is: the unit inside which new tokens' merges can happen
counting/    the corpus as a table of distinct words and counts on disk, in bounded memory
kernels/     compiled code: words counted in text, words cut into tokens

select.py    which tokens: candidates proposed, then searched; rules.py is what it is given and gives
search.py    the rounds: count, drop, add, to a fixpoint
letters.py   candidates that are single letters
intermediate.py, continued.py  the two ways to learn candidates of several letters
superwords.py  candidates that reach over the space between words
curation.py  what a person allows and refuses
candidate_counts.py  how often each token occurs, for any choice of candidates, compiled
token_counts.py      what the tokenizers library counts, to verify the others with

watching.py         how far counting, training and checking are
rarity.py           which new tokens are below the threshold, and why they are in
candidate_table.py  what lies beside the tokenizer: every candidate and why
savings.py          what lies beside it too: what the new tokens save
shown.py            `axolotl eeve tokens`: how tokenizers cut a text, side by side
spm.py              the SentencePiece model of the same tokens, where the base has one
"""
