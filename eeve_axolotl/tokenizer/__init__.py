"""Extending a tokenizer: from a corpus to new tokens that it really produces (card, step by step).

words.py    what a word is: the unit inside which new tokens' merges can happen
counting.py the corpus as a table of distinct words and counts on disk, in bounded memory
base.py     the base tokenizer: finding it, adding tokens and merges to it
select.py   which tokens: candidates, counted with the target tokenizer, to a fixpoint
segment.py  how often each token occurs, for any choice of candidates, compiled
curation.py what a person allows and refuses
candidates.py, report.py  what lies beside the tokenizer: every candidate and why, what the new tokens save
spm.py     the SentencePiece model of the same tokens, where the base has one
build.py    the whole command: settings, the above in order, the directory and its manifest
"""
