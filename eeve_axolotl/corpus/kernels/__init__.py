"""Compiled code (numba) that goes over the characters of a document: all that the corpus does for each word or line.

A text is a uint32 array of code points, `characters.points`; what a character is, a table says that code points index.

characters.py  the tables: white space, letters of scripts, small letters, what MinHash's normal form makes of a character
hashes.py      64-bit hashes: XXH3, as the library xxhash has it, and our own of words, lines and runs of words
cleaning.py    the normal form of a text; letters of scripts; short and unfinished lines
passages.py    words and lines, hashed: MinHash signatures, passages, copies
stopwords.py   words that are stopwords, or end like one
repetition.py  Gopher's rules of repetition
tokens.py      a text cut into words, and words into tokens by a BPE's merges, each distinct word once
"""
