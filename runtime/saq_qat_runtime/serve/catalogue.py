"""Which models are served: found in a folder, loaded before they are seen, replaced without a gap."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from saq_qat_runtime.bundle.manifest import MANIFEST_FILE, Manifest, bundle_sha256
from saq_qat_runtime.errors import ClosedError, ModelError
from saq_qat_runtime.serve.model import ModelPlace, ServedModel
from saq_qat_runtime.serve.refusals import NotFoundError, OverloadError

__all__ = ["Catalogue", "Changes", "find_places"]

_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_log = logging.getLogger("saq_qat_runtime.serve")

Models = Mapping[str, Mapping[str, ServedModel]]


def find_places(root: Path) -> tuple[ModelPlace, ...]:
    """The models under `root`: a bundle; or a folder of `<model>/<version>/` or `<model>/`, each a bundle.

    Versions are whole numbers from 1; a bundle right in a model's folder is version 1. Folders without a
    manifest are passed over. Raises ModelError if there is none, or if two claim the same version.
    """
    if (root / MANIFEST_FILE).is_file():
        return (ModelPlace.of_bundle(root),)
    if not root.is_dir():
        raise ModelError(f"{root} is no folder. Name a bundle, or a folder of models.")
    places: dict[tuple[str, str], ModelPlace] = {}
    for model in sorted(path for path in root.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)):
        for version, folder in _versions(model):
            if (model.name, version) in places:
                rule = f"{model} holds version {version} twice: as a bundle and as a folder {version}"
                raise ModelError(f"{rule}. Move the bundle into a folder of its own.")
            place = ModelPlace(model.name, version, folder, bundle_sha256(folder))
            places[model.name, version] = place
    if not places:
        layout = "models/<model>/<version>/manifest.json, or a bundle with manifest.json right in it"
        raise ModelError(f"{root} holds no model. Expected {layout}.")
    return tuple(places.values())


def _versions(model: Path) -> Iterator[tuple[str, Path]]:
    if (model / MANIFEST_FILE).is_file():
        yield "1", model
    for folder in sorted(model.iterdir()):
        if _VERSION.fullmatch(folder.name) and (folder / MANIFEST_FILE).is_file():
            yield folder.name, folder


@dataclass(frozen=True)
class Changes:
    """What a reload did: models that were loaded, closed, left alone, as `name/version`."""

    loaded: tuple[str, ...]
    closed: tuple[str, ...]
    kept: tuple[str, ...]


class Catalogue:
    """The models of one folder. `reload` loads them; until its first success nothing is ready.

    load: makes a served model of a place; raises SessionError.
    """

    def __init__(self, root: Path, load: Callable[[ModelPlace], ServedModel]) -> None:
        self._root = root
        self._load = load
        self._models: Models = {}
        self._reloading = Lock()

    @property
    def models(self) -> Models:
        """By name and version; a snapshot."""
        return self._models

    @property
    def ready(self) -> bool:
        """Whether there are models, and all of them compute."""
        return bool(self._models) and self.healthy

    @property
    def healthy(self) -> bool:
        """Whether no engine of a loaded model has failed."""
        return all(model.healthy for model in self._all())

    def find(self, name: str, version: str | None = None) -> ServedModel:
        """The model, of its highest version unless one is named.

        Raises NotFoundError; OverloadError while nothing is loaded yet.
        """
        models = self._models
        if not models:
            raise OverloadError("The models are being loaded. Try again.")
        if name not in models:
            raise NotFoundError(f"Model {name!r} is unknown. Served: {', '.join(sorted(models))}.")
        versions = models[name]
        if version is None:
            return versions[max(versions, key=int)]
        if version not in versions:
            served = ", ".join(sorted(versions, key=int))
            raise NotFoundError(f"Model {name!r} has no version {version!r}. Served: {served}.")
        return versions[version]

    @contextmanager
    def hold(self, name: str, version: str | None = None) -> Iterator[ServedModel]:
        """The model, kept from being closed; see `find`."""
        with ExitStack() as stack:
            model = self.find(name, version)
            while not _entered(stack, model):  # replaced in between; the catalogue names its successor
                model = self.find(name, version)
            yield model

    def reload(self) -> Changes:
        """Look at the folder again; blocks until new models are loaded and replaced ones are closed.

        A model whose manifest is the same stays, if its files are still what the manifest says. All new ones
        are loaded before any is seen: if one fails, its error is raised and everything is served as
        before.
        """
        with self._reloading:
            before = {(model.place.name, model.place.version): model for model in self._all()}
            after: dict[tuple[str, str], ServedModel] = {}
            fresh: list[ServedModel] = []
            try:
                for place in find_places(self._root):
                    old = before.get((place.name, place.version))
                    if old is not None and old.healthy and old.place == place:
                        # What serves was read before; the next start will read what lies there now.
                        Manifest.load(place.folder)
                        after[place.name, place.version] = old
                    else:
                        fresh.append(self._load(place))
                        after[place.name, place.version] = fresh[-1]
            except BaseException:  # passed on; engines that nobody will use are released first
                _retire(fresh)
                raise
            self._models = _by_name(after)
            gone = [model for model in before.values() if model not in after.values()]
            _retire(gone)
            kept = [model for model in after.values() if model not in fresh]
            return Changes(_names(fresh), _names(gone), _names(kept))

    def close(self) -> None:
        """Close every model, once its requests are answered."""
        with self._reloading:
            closing = self._all()
            self._models = {}
            _retire(closing)

    def _all(self) -> list[ServedModel]:
        return [model for versions in self._models.values() for model in versions.values()]


def _entered(stack: ExitStack, model: ServedModel) -> bool:
    try:
        stack.enter_context(model.use())
    except ClosedError:
        return False
    return True


def _by_name(models: Mapping[tuple[str, str], ServedModel]) -> dict[str, dict[str, ServedModel]]:
    grouped: dict[str, dict[str, ServedModel]] = {}
    for (name, version), model in models.items():
        grouped.setdefault(name, {})[version] = model
    return grouped


def _names(models: list[ServedModel]) -> tuple[str, ...]:
    return tuple(f"{model.place.name}/{model.place.version}" for model in models)


def _retire(models: list[ServedModel]) -> None:
    for model in models:
        model.retire()
