"""`axolotl eeve init`: a project that runs as it is.

`wanted` is what was asked for; `base` reads the base model's config; `texts` looks into the user's text; `hardware` finds
batches that fit; `edits` changes the packaged recipes line by line; `make` writes the files.
"""
