"""What our JSON files hold, as far as anything of ours reads it: a file of another shape is told, not tripped over.

Keys that are not named here may be there too. Those with a default may be missing: earlier versions had fewer.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

Number = Annotated[FiniteFloat, Field(ge=-1e18, le=1e18)]
Count = Annotated[int, Field(ge=0, le=10**18)]
Hashes = dict[str, str]
_MOST = 3  # things that are wrong with a file: more are not told


class Shape(BaseModel):
    """Base of the shapes: types as they are, other keys allowed."""

    model_config = ConfigDict(extra="allow", strict=True)


class Mark(Shape):
    """What a model's config says of the rows that we added."""

    base_vocab_size: Count
    vocab_size: Count | None = None


class ModelConfig(Shape):
    """config.json, where we read it."""

    eeve_axolotl: Mark | None = None
    tie_word_embeddings: bool | None = None
    vocab_size: Count | None = None


class RowCounts(Shape):
    """Of a matrix or the layers."""

    rows_frozen: Count | None = None
    rows_trained: Count | None = None


class Place(Shape):
    """A place in a text, in sequences of a pass; `trainer/text_order.py` reads the rest."""

    passes: Count
    sequences: Count
    of: Count


class TextRead(Shape):
    """Which part of the text a stage has read."""

    to: Place | None = None


class Record(Shape):
    """A stage's record."""

    stage: str | None = None
    trains: dict[str, str] | None = None
    learning_rates: dict[str, Number] | None = None
    base_vocab_size: Count | None = None
    vocab_size: Count | None = None
    eeve_axolotl: str | None = None
    steps: Count | None = None
    parameters_trained: Count | None = None
    optimizer_state_bytes: Number | None = None
    fingerprint_before: Hashes | None = None
    fingerprint_after: Hashes | None = None
    moved: dict[str, Any] | None = None
    input_embeddings: RowCounts | None = None
    output_embeddings: RowCounts | None = None
    internal_layers: RowCounts | None = None
    text: TextRead | None = None
    weights: Hashes | None = None
    merged_from: Hashes | None = None


class WholeRecord(Record):
    """A record that says which weights it is of."""

    weights: Hashes


class Step(Shape):
    """A logged step."""

    step: Count
    loss: float | None = None


class History(Shape):
    """A stage's history."""

    steps: list[Step] = []
    tokens_per_step: Count | None = None
    seconds: Annotated[Number, Field(ge=0)] | None = None
    versions: dict[str, Any] | None = None
    settings: dict[str, Any] | None = None


class StagePlace(Shape):
    """A stage in a chain's file."""

    name: str
    directory: str


class RunPlaces(Shape):
    """A run in a chain's file."""

    name: str = ""
    config: str = ""
    output_dir: str
    result: str | None = None
    stages: list[StagePlace] = []


class ChainFile(Shape):
    """What a chain is."""

    tokenizer: str
    base_model: str
    texts: dict[str, str] | None = None
    runs: list[RunPlaces]


class RunState(Shape):
    """What a run was made from."""

    settings: dict[str, Any]
    tokenizer: str
    starts_from: Hashes
    inputs: Hashes | None = None
    made: Hashes | None = None


class StartRecord(Shape):
    """What `axolotl eeve start` made a model of; its figures are read by people."""

    base: str | None = None
    tokenizer: str | None = None
    texts: dict[str, Hashes] | None = None


class CheckpointText(Shape):
    """Which part of the text a checkpoint has read; `trainer/text_order.py` reads the rest."""

    step: Count


class OfNewTokens(Shape):
    """How new tokens are predicted in a text."""

    targets: Count | None = None
    accuracy: Number | None = None
    first_subword_instead: Number | None = None
    share_of_predictions: Number | None = None


class OfDocuments(Shape):
    """Figures of each document of a text."""

    bits: list[Number]
    bytes: list[Annotated[Count, Field(ge=1)]]  # empty documents are left out
    sha256: str

    @model_validator(mode="after")
    def _of_the_same_documents(self) -> OfDocuments:
        if len(self.bits) != len(self.bytes):
            raise ValueError("should have bits and bytes of the same documents")
        return self


class OfText(Shape):
    """Figures on a text."""

    bits_per_byte: Number | None = None
    tokens_per_character: Number | None = None
    new_tokens: OfNewTokens | None = None
    documents: OfDocuments | None = None


class Norms(Shape):
    """Of some rows."""

    mean_norm: Number | None = None
    std_norm: Annotated[float, Field(le=1e18)] | None = None  # of one row: NaN


class Sample(Shape):
    """What a model wrote."""

    prompt: str
    text: str
    new_token_share: Number | None = None


def _token_and_cosine(pair: list[str | float]) -> list[str | float]:
    if len(pair) != 2 or not isinstance(pair[0], str) or isinstance(pair[1], str):
        raise ValueError("should be a token and its cosine")
    return pair


class Figures(Shape):
    """A model's figures."""

    name: str
    position: Number = 0
    texts: dict[str, OfText]
    retention: dict[str, Number | None] | None = None
    rows: dict[str, dict[str, Norms | None] | None] | None = None
    neighbours: dict[str, list[Annotated[list[str | float], AfterValidator(_token_and_cosine)]]] | None = None
    samples: list[Sample] | None = None


class Origin(Shape):
    """What a tokenizer was made of."""

    base: Hashes
    corpus: list[Hashes]
    lists: Hashes


class TokenizerChoices(Shape):
    """Of a tokenizer's settings, what is told of them."""

    script: list[str] | None = None
    corpus: list[dict[str, Any]] | None = None


class TextSize(Shape):
    """Of a tokenizer's corpus."""

    documents: Count | None = None
    bytes: Count | None = None


class WordTokens(Shape):
    """Tokens in the corpus's words."""

    base: Count | None = None
    extended: Count | None = None


class RareTokens(Shape):
    """New tokens that occur less often than the threshold."""

    letters: Count = 0
    letters_never_alone: Count = 0
    beginnings_of_letters: Count = 0
    allowed: Count = 0
    others: Count = 0


class TokenizerManifest(Shape):
    """What `axolotl eeve tokenizer` says of a tokenizer."""

    base_vocab_size: Count
    vocab_size: Count | None = None
    base: str | None = None
    settings: TokenizerChoices | None = None
    corpus: TextSize | None = None
    tokens_in_words: WordTokens | None = None
    min_count: Count | None = None
    rare: RareTokens | None = None
    unreachable: Count | None = None
    made_of: Origin | None = None
    files: Hashes | None = None


class CorpusTokenizer(Shape):
    """The tokenizer that a corpus was made with."""

    identity: str | None = None
    directory: str | None = None


class Tokens(Shape):
    """Of a group of a corpus."""

    tokens: Count


class ShardFile(Shape):
    """Of a file of a corpus."""

    sha256: str | None = None


class CorpusManifest(Shape):
    """What `axolotl eeve corpus` says of a corpus."""

    tokenizer: CorpusTokenizer
    longest_record: Count
    groups: dict[str, Tokens] | None = None
    shards: dict[str, ShardFile] | None = None
    settings: dict[str, Any] | None = None
    made_of: dict[str, dict[str, str]] | None = None


class Tallied(Shape):
    """Of a corpus that is being made: documents and bytes by group and reason, and examples."""

    seen: dict[str, dict[str, list[Count]]]
    examples: dict[str, list[str]]


class Choice(Shape):
    """Of a corpus that is being made: what was chosen of each group."""

    groups: dict[str, Tokens]


class Threshold(Shape):
    """Of a corpus that is being made: the highest perplexity that is kept."""

    maximum: Number


class AddedToken(Shape):
    """A token that stands outside the model of a tokenizer."""

    id: Count
    content: str


class TokenizerModel(Shape):
    """Vocabulary and merges; the vocabulary of some kinds is a list."""

    vocab: dict[str, Count] | list[Any] | None = None


class FastTokenizer(Shape):
    """A tokenizer.json."""

    model: TokenizerModel
    added_tokens: list[AddedToken] | None = None


def wrong(content: Any, shape: type[Shape]) -> str | None:
    """What `content` has that `shape` does not allow, in words; None if nothing."""
    if not isinstance(content, dict):
        return "is not a JSON mapping"
    try:
        shape.model_validate(content)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        return "has " + ", ".join(dict.fromkeys(_problem(each) for each in problems[:_MOST]))
    except RecursionError:
        return "is nested too deeply"
    return None


def _problem(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"] if "[" not in str(part))
    return f"no `{key}`" if problem["type"] == "missing" else f"a `{key}` of another kind"
