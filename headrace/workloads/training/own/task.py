"""What a script trains, as the trainer asks for it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.distributed.tensor.parallel import ParallelStyle

from headrace.workloads.training.own.data_set import DataSet, OwnSamples
from headrace.workloads.training.own.model import OwnBlueprint, Step, built
from headrace.workloads.training.own.trial import tried
from headrace.workloads.training.own.trial_together import tried_together
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.samples import Samples
from headrace.workloads.training.spec import TrainingSpec
from headrace.workloads.training.switching import fill_initial
from headrace.workloads.training.world import World


class OwnTask:
    """A model, data and a step of the user's own."""

    def __init__(
        self,
        model: Callable[[], nn.Module],
        data: DataSet,
        step: Step,
        *,
        blocks: Sequence[str] | None = None,
        tensor_parallel: Mapping[str, ParallelStyle] | None = None,
        spec: TrainingSpec,
    ) -> None:
        self._given = model, data, step
        self._blocks, self._styles = blocks, tensor_parallel
        self._spec = spec
        self._opened: tuple[OwnBlueprint, OwnSamples] | None = None

    def _open(self) -> tuple[OwnBlueprint, OwnSamples]:
        """Build the model, look at the data, and try a step."""
        if self._opened is None:
            _, data, step = self._given
            samples = OwnSamples(data, at_least=self._spec.global_batch_size)
            whole = self.built()
            tried(whole, step, samples)
            blueprint = OwnBlueprint(
                whole, self.built, step, self._blocks, self._styles, seed=self._spec.seed
            )
            self._opened = blueprint, samples
        return self._opened

    def built(self) -> nn.Module:
        """The model with its initial weights, made anew."""
        return built(self._given[0], self._spec.seed)

    def blueprint(self) -> OwnBlueprint:
        return self._open()[0]

    def samples(self) -> Samples:
        return self._open()[1]

    def positions(self) -> int:
        return 0

    def fingerprint(self) -> str:
        return self.blueprint().fingerprint

    def beginning(self) -> Callable[[PlannedModel], None]:
        return lambda model: fill_initial(model, self._spec.seed)

    def fixed(self) -> dict[str, Any]:
        return {"model": "own code"}

    def try_together(self, world: World) -> None:
        blueprint, samples = self._open()
        tried_together(self.built, self._given[2], samples, blueprint.styles, world)

    def said_at_end(self, model: PlannedModel, samples: Samples) -> str:
        return ""
