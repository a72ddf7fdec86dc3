"""What of a config may be written into a file: everything but keys, passwords and other credentials.

Files of ours lie beside weights, which people publish. So `redacted` goes over all settings, paths and names on their way
into histories, records, manifests, reports and cards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[REDACTED]"

# Keys of experiment trackers: what Axolotl itself leaves out of what it sends (its `PREFIXES_TO_REDACT`).
_TRACKERS = ("wandb_", "comet_", "mlflow_", "gradio_", "trackio_", "swanlab_")
_SECRET = re.compile(
    r"api_?key|secret|passw|passphrase|pwd$|credential|private_?key|access_?key|account_?key|signing_?key|encryption_?key"
    r"|authori[sz]ation$|^auth$|bearer|cookie|webhook|connection_?string|^(key|sas|dsn)$|signature|^sig$"
)
_TOKEN = re.compile(r"(?:^|.*_)token$")
# Tokens of text, not of access.
_OF_TEXT = re.compile(
    r".*?(bos|eos|pad|unk|cls|sep|mask|eot|eom|boi|eoi|boa|eoa|bov|eov|image|video|audio|special|start|end|stop|new|last|first)_token$"
)
_USER_INFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#]*@")
_QUERY = re.compile(r"(?P<name>[?&;]([^=&;\s#]+)=)[^&;\s#\"']*")
_KNOWN = re.compile(  # credentials that can be told by their form
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[opsu]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
    r"|AKIA[0-9A-Z]{16}|xox[abprs]-[\w-]{10,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+)"
)
_OPTION = re.compile(r"(?P<name>--?(?P<key>[A-Za-z][\w-]*)[= ]+)(?P<value>[^\s\"']+)")


def redacted(value: Any, key: str = "") -> Any:
    """`value` of the setting `key`, at any depth, with `REDACTED` in the place of credentials."""
    if key and is_secret(key) and value is not None and not isinstance(value, bool):
        return REDACTED
    if isinstance(value, Mapping):
        return {redacted(name): redacted(each, str(name)) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(each) for each in value]
    return redacted_text(value) if isinstance(value, str) else value


def is_secret(key: str) -> bool:
    """Whether the value of a setting of this name is nobody's business."""
    key = key.lower().replace("-", "_")
    if key.startswith(_TRACKERS) or _SECRET.search(key):
        return True
    return _TOKEN.match(key) is not None and _OF_TEXT.match(key) is None


def redacted_text(text: str) -> str:
    """`text` without the user info of URLs, secret query values and command-line options, and known forms of tokens."""
    text = _USER_INFO.sub(rf"\g<scheme>{REDACTED}@", text)
    if "://" in text:
        text = _QUERY.sub(lambda found: _named(found, found[2]), text)
    text = _OPTION.sub(lambda found: _named(found, found["key"]), text)
    return _KNOWN.sub(REDACTED, text)


def _named(found: re.Match[str], key: str) -> str:
    hidden = is_secret(key) or key.lower().startswith("x-amz-")
    return f"{found['name']}{REDACTED}" if hidden else found[0]
