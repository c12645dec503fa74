"""What a Gaussian-mixture task costs: elementwise operations on points, each counted as one FLOP per number."""

from __future__ import annotations

from collapsebench.authoring.estimates.costs import STATES, Costs, Memory
from collapsebench.task import Task
from collapsebench.workloads.mixture.settings import GmmSettings
from collapsebench.workloads.work import Sizes

_DOUBLE = 8  # bytes
_NODES = 20_001  # of the quadrature
_CURVE = 241  # points of the densities that reports draw
_DENSITY = 7  # operations per point and component: the log-density of a mixture


def gmm_costs(task: Task, sizes: Sizes, samples: int) -> Costs:
    """Costs of a task whose workload is a Gaussian mixture.

    Args:
        samples: that a generation draws.
    """
    settings = task.spec.workload
    assert isinstance(settings, GmmSettings)
    components, batch = len(settings.model.weights), settings.training.batch_size
    parameters = components * len(set(settings.model.learned))
    numbers = _DOUBLE * batch * components
    weights, learned = _DOUBLE * 3 * components, _DOUBLE * parameters
    return Costs(
        parameters=parameters,
        update=batch * (33 * components + 7),  # densities of model and truth, peaks, and the model's gradient
        sample=9,
        evaluation={"quadrature": _NODES * (_DENSITY * components + 4), "moments": 2 * samples},
        gallery=2 * _CURVE * (_DENSITY * components + 1),
        memory=Memory(
            weights,
            learned,
            STATES * learned,
            activations=8 * numbers,
            sampling=6 * _DOUBLE * samples,
            evaluation=3 * _DOUBLE * _NODES * components,
        ),
        model_bytes=weights,
        item_bytes=_DOUBLE,
        notes=("a mixture is fitted by elementwise operations; each counts as one FLOP per number", *sizes.notes),
    )
