"""`nas.search` and `nas.preview`: the calls that begin with a search space."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nas.api import searching
from nas.api.call_text import call_text
from nas.api.progress import Progressing, said, shown
from nas.api.result import Result, result_of
from nas.api.searching import SearchOptions
from nas.api.task import asked_for, with_given
from nas.datasets.memory import GivenImages, given_images
from nas.errors import UserError, require
from nas.network.layers import Shape
from nas.samplers.names import DEFAULT_SAMPLER, SamplerName
from nas.space.objective import MetricName
from nas.space.pictures import Pictures
from nas.space.search_space import SearchSpace
from nas.study.history import dataset_of
from nas.study.location import DEFAULT_OUTPUT, default_storage, locate
from nas.tuner.estimate import Preview
from nas.tuner.names import DEFAULT_PRUNER, PrunerName
from nas.workers.fleet import Workers


def search(
    space: SearchSpace | str | Path = "mnist",
    trials: int = 50,
    *,
    study: str | None = None,
    epochs: int | None = None,
    target: float | None = None,
    start: Sequence[Mapping[str, Any]] | None = None,
    data: Any = None,
    validation: Any = None,
    test: Any = None,
    input_shape: Shape | None = None,
    pictures: Pictures | None = None,
    metric: MetricName | None = None,
    cross_validation: int | None = None,
    fit_recipe: bool | None = None,
    sampler: SamplerName = DEFAULT_SAMPLER,
    pruner: PrunerName = DEFAULT_PRUNER,
    seed: int = 0,
    finalists: int = 1,
    final_seeds: int = 3,
    baseline: bool = False,
    until_target: bool = False,
    timeout: float | None = None,
    device: str = "auto",
    jobs: int | None = None,
    ray: str | None = None,
    jobs_per_gpu: int | None = None,
    epoch_timeout: float | None = None,
    output_dir: str | Path = DEFAULT_OUTPUT,
    storage: str | None = None,
    data_dir: str | None = None,
    progress: Progressing = True,
) -> Result:
    """Search for the best network of a space; what `python -m nas.search` does, with the options of that command.

    Interrupting it loses nothing: the same call goes on to the same total.

    Args:
        space: a search space, or the name or path of one.
        trials: networks trained in total.
        study: the name of the study (default: that of the space, or of the files), which resumes where it exists.
        epochs: of a full training, if fewer than the space's.
        target: the accuracy asked for, as a fraction.
        until_target: end the search when the mean of a network over fresh seeds is sure to be at the target.
        start: the candidates to try first, each as some or all of its parameters (default: the space's).
        data: another data set for the networks of the space: a folder, table or name; or `(images, labels)`, or a torch
            data set of such pairs. Such images are uint8, or floats from 0 to 1; they are kept in the study's folder.
        validation: the same for the validation images of `(images, labels)` (default: a sixth of those to train on).
        test: the same for the test images of `(images, labels)` (default: a sixth of the data).
        input_shape: the shape in which the networks see `data` (default: of a known data set its own, of files
            (3, 32, 32), of arrays that of the space).
        pictures: how the files of `data` are prepared (default: as the space says).
        metric: what scores are (default: the space's); with "balanced_accuracy" batches are balanced, too.
        cross_validation: hold every sixth image out in turn, so many times over, and train six networks each time for
            a candidate; 0: one sixth only (default: the space's; for other data 2 below 1,280 images to train on).
        fit_recipe: train two networks before the search, to find the recipe that fits the pictures (default: the
            space's; for other data True). Arrays of the space's own shape and classes are not other data.
        progress: True for the usual view, False for none, or a function of an iterator of events and a title.

    Raises:
        NothingFeasibleError: no draw of the space is within its limits.
        UserError: bad input, with nothing written; or a storage, disk or worker that fails.
    """
    command = call_text("nas.search", search, locals())
    workers = Workers(device=device, jobs=jobs, ray=ray, jobs_per_gpu=jobs_per_gpu, epoch_timeout=epoch_timeout)
    options = SearchOptions(
        trials=trials,
        sampler=sampler,
        pruner=pruner,
        seed=seed,
        timeout=timeout,
        finalists=finalists,
        final_seeds=final_seeds,
        baseline=baseline,
        until_target=until_target,
        workers=workers,
        data_dir=data_dir,
    )
    wanted, given = _settled(space, data, validation, test, input_shape, pictures, metric)
    wanted = wanted.restrict(epochs=epochs)
    asked = {"target": target, "start": start, "cross_validation": cross_validation, "fit_recipe": fit_recipe}
    wanted = with_given(wanted, **asked)
    name = study if study is not None else wanted.name
    if name is None:
        raise UserError("search: the space has no name of its own; give the study one, such as study='demo'")
    location = locate(name, Path(output_dir), storage or default_storage())
    found = searching.search(
        *(wanted, location, options, given),
        command=command,
        show=shown(progress),
        say=said(progress),
        quiet=progress is not True,
    )
    result = result_of(found.history, location, dataset_of(found.history, location, data_dir))
    return replace(result, written=found.written, complaint=found.complaint)


def preview(
    space: SearchSpace | str | Path = "mnist",
    trials: int = 50,
    *,
    epochs: int | None = None,
    data: Any = None,
    validation: Any = None,
    test: Any = None,
    input_shape: Shape | None = None,
    pictures: Pictures | None = None,
    metric: MetricName | None = None,
    cross_validation: int | None = None,
    fit_recipe: bool | None = None,
    pruner: PrunerName = DEFAULT_PRUNER,
    seed: int = 0,
    finalists: int = 1,
    final_seeds: int = 3,
    baseline: bool = False,
    device: str = "auto",
    jobs: int | None = None,
    ray: str | None = None,
    jobs_per_gpu: int | None = None,
    data_dir: str | None = None,
) -> Preview:
    """What a space holds, and how long a search of it would take; nothing is trained but a few steps, to time them.

    Raises:
        NothingFeasibleError, UserError: as `search` does.
    """
    options = SearchOptions(
        trials=trials,
        pruner=pruner,
        seed=seed,
        finalists=finalists,
        final_seeds=final_seeds,
        baseline=baseline,
        workers=Workers(device=device, jobs=jobs, ray=ray, jobs_per_gpu=jobs_per_gpu),
        data_dir=data_dir,
    )
    wanted, given = _settled(space, data, validation, test, input_shape, pictures, metric)
    wanted = wanted.restrict(epochs=epochs)
    wanted = with_given(wanted, cross_validation=cross_validation, fit_recipe=fit_recipe)
    return searching.preview(wanted, options, given, said(False), quiet=True)


def _settled(
    space: SearchSpace | str | Path,
    data: Any,
    validation: Any,
    test: Any,
    input_shape: Shape | None,
    pictures: Pictures | None,
    metric: MetricName | None,
) -> tuple[SearchSpace, GivenImages | None]:
    """The space as it is to be searched, and the images that were given for it."""
    if not isinstance(space, SearchSpace | str | Path):
        given_as = type(space).__name__
        raise UserError(f"space: it is a {given_as}; give a SearchSpace, its name or its path, and images to data=")
    if input_shape is not None:
        is_shape = isinstance(input_shape, tuple) and len(input_shape) == 3
        require(is_shape, "search", "input_shape", input_shape, "(channels, height, width)")
    require(pictures is None or isinstance(pictures, Pictures), "search", "pictures", pictures, "a nas.Pictures")
    if data is None or isinstance(data, str | Path):
        for name, images in (("validation", validation), ("test", test)):
            if images is not None:
                raise UserError(f"{name}: {name} images go with data=(images, labels); give that, too")
        return asked_for(space, data, input_shape, metric, {} if pictures is None else asdict(pictures)), None
    if pictures is not None:
        raise UserError("pictures: they say how files are prepared, and data is none; leave them out")
    wanted = asked_for(space, None, None, metric)
    given = given_images(data, test, input_shape or wanted.input_shape, validation=validation)
    shape, classes = input_shape or wanted.input_shape, len(given.classes)
    if (shape, classes) == (wanted.input_shape, wanted.num_classes):
        return replace(wanted, dataset=given.name), given
    moved = wanted.on(given.name, shape, classes, called=wanted.name)
    return moved.for_few(int((~given.pool.held_out).sum()), own_validation=not given.pool.drawn), given
