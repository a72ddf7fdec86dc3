"""Languages by their ISO 639-1 codes: the name, and the Unicode script that they are written in."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import regex

from eeve_axolotl.errors import EEVEError


@dataclass(frozen=True)
class Language:
    """A language to teach."""

    name: str
    scripts: tuple[str, ...]
    code: str | None = None


_KNOWN = """
am Amharic Ethiopic | ar Arabic Arabic | as Assamese Bengali | be Belarusian Cyrillic | bg Bulgarian Cyrillic
bn Bengali Bengali | bo Tibetan Tibetan | cs Czech Latin | da Danish Latin | de German Latin | el Greek Greek
en English Latin | es Spanish Latin | et Estonian Latin | fa Persian Arabic | fi Finnish Latin | fr French Latin
gu Gujarati Gujarati | he Hebrew Hebrew | hi Hindi Devanagari | hr Croatian Latin | hu Hungarian Latin
hy Armenian Armenian | id Indonesian Latin | is Icelandic Latin | it Italian Latin | ja Japanese Han,Hiragana,Katakana
ka Georgian Georgian | kk Kazakh Cyrillic | km Khmer Khmer | kn Kannada Kannada | ko Korean Hangul | ky Kyrgyz Cyrillic
lo Lao Lao | lt Lithuanian Latin | lv Latvian Latin | mk Macedonian Cyrillic | ml Malayalam Malayalam
mn Mongolian Cyrillic | mr Marathi Devanagari | ms Malay Latin | my Burmese Myanmar | ne Nepali Devanagari | nl Dutch Latin
no Norwegian Latin | or Odia Oriya | pa Punjabi Gurmukhi | pl Polish Latin | ps Pashto Arabic | pt Portuguese Latin
ro Romanian Latin | ru Russian Cyrillic | si Sinhala Sinhala | sk Slovak Latin | sl Slovenian Latin | sq Albanian Latin
sr Serbian Cyrillic | sv Swedish Latin | sw Swahili Latin | ta Tamil Tamil | te Telugu Telugu | tg Tajik Cyrillic
th Thai Thai | tr Turkish Latin | ug Uyghur Arabic | uk Ukrainian Cyrillic | ur Urdu Arabic | uz Uzbek Latin
vi Vietnamese Latin | yo Yoruba Latin | zh Chinese Han | zu Zulu Latin
"""

LANGUAGES = {
    code: Language(name, tuple(scripts.split(",")), code)
    for code, name, scripts in (each.split() for each in _KNOWN.replace("\n", "|").split("|") if each.strip())
}

BY_NAME = {each.name: each for each in LANGUAGES.values()}


def of_scripts(scripts: Collection[str]) -> list[Language]:
    """The languages that a script tells: those that alone are written in one of `scripts`, in that order."""
    users = {script: [each for each in LANGUAGES.values() if script in each.scripts] for script in scripts}
    return list(dict.fromkeys(found[0] for found in users.values() if len(found) == 1))


def find(language: str | None, scripts: tuple[str, ...]) -> Language:
    """The language of this code or name, written in `scripts` if any are given.

    Raises EEVEError for a script that Unicode does not have, and for a language without a known script.
    """
    for script in scripts:
        try:
            regex.compile(rf"\p{{Script={script}}}")
        except regex.error:
            raise EEVEError(
                f"--script {script}: Unicode has no such script; give one like Hangul, Greek, Thai or Devanagari"
            ) from None
    if language is None:
        if not scripts:
            raise EEVEError("say which language is new: --language ko (a code or a name), or --script Hangul")
        return next(
            (each for each in LANGUAGES.values() if each.scripts == scripts), Language(scripts[0], scripts)
        )
    wanted = language.casefold()
    known = next((each for each in LANGUAGES.values() if wanted in (each.code, each.name.casefold())), None)
    if known:
        return Language(known.name, scripts or known.scripts, known.code)
    if not scripts:
        raise EEVEError(f"the script of the language {language} is not known here; give it with --script")
    return Language(language, scripts)
