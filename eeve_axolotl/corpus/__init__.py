"""From raw text to a training corpus in which the new tokens are seen often enough (paper 3.1; card, step 8).

`build.build` is the whole of it; each module beside it does one thing and can be used alone:
`filters`, `perplexity`, `duplicates`, `counts` (new tokens per document), `choose` (which documents).
"""

import os

# Arrow looks for it when it is first imported. Its own allocator keeps what is free for itself, some 130 MB of it.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
