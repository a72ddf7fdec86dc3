"""Compiled code, apart from what calls it: arrays in, arrays out, no object of Python.

alphabet.py  the characters of words, numbered
words.py     words found in text, counted in a hash table, sorted and spelled (for counting/word_counter.py)
merges.py    words cut into tokens by a table of merges (for candidate_counts.py)
"""
