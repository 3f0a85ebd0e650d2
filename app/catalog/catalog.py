"""The catalog: every model on offer, by its endpoint id."""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Final

from app.catalog.model import Model
from app.catalog.reading import CatalogError, read
from app.errors import AppError


class UnknownModel(AppError):
    """No model has this id; `GET /v1/models` lists them."""

    status, code = 404, "unknown_model"


PACKAGED: Final = Path(__file__).parent / "models"


class Catalog:
    """The models on offer. It is read once and never changes."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._models = {model.id: model for model in models}

    @property
    def models(self) -> list[Model]:
        """Every model, by id."""
        return [self._models[name] for name in sorted(self._models)]

    @property
    def at_once(self) -> dict[str, int]:
        """How many jobs may be at fal at once, of the models that have such a cap."""
        return {model.id: model.at_once for model in self.models if model.at_once is not None}

    def get(self, model_id: str) -> Model | None:
        """The model with this endpoint id, whoever owns it."""
        return self._models.get(model_id)

    def known(self, model_id: str) -> Model:
        """The model with this endpoint id. Raises UnknownModel, with what was probably meant."""
        model = self.get(model_id)
        if model is None:
            close = self.close_to(model_id)
            raise UnknownModel(f"Did you mean {' or '.join(close)}?" if close else None)
        return model

    def close_to(self, model_id: str) -> list[str]:
        """The ids that *model_id* was probably meant to be, best first, at most three."""
        wanted = model_id.strip("/")[:200]
        ending = [name for name in self._models if wanted and name.endswith(f"/{wanted}")]
        return (ending or get_close_matches(wanted, self._models, n=3, cutoff=0.5))[:3]


def load(folder: Path | None = None, *, extra: Path | None = None) -> Catalog:
    """
    The models in *folder* (ours, unless another is named), then those in *extra*.

    A model in *extra* takes the place of one with the same id. Raises CatalogError with every fault
    of every file.
    """
    faults: list[str] = []
    models = read(folder, faults) if folder else list(_packaged())
    if extra is not None:
        models += read(extra, faults)
    if faults:
        raise CatalogError(faults)
    return Catalog(models)


@cache
def _packaged() -> tuple[Model, ...]:
    """Ours: they change with the code only, and a process may ask for them more than once."""
    return tuple(load(PACKAGED).models)
