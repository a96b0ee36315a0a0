"""The launchpad forms of a training."""

from typing import Any, Literal

from pydantic import Field

from assets.forms import Form, changes_form
from assets.resources import Launcher
from pipelines.device import require_device_name
from pipelines.pretrain.recipes import RECIPES, recipe_named


class TrainingSettings(Form):
    """How a training is computed. The result is the same up to rounding."""

    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N.")
    processes: int = Field(
        default=0,
        ge=0,
        description="Processes of this machine that share each batch; with GPUs, one for each GPU. 0: the setting of "
        "the resource `launcher`.",
    )
    accumulate: int = Field(
        default=1, ge=1, description="Parts that a batch is computed in, one after another, to use less memory."
    )
    recompute: bool = Field(
        default=False,
        description="Compute blocks again in the backward pass: much less memory, a quarter more work.",
    )

    def refuse(self) -> None:
        require_device_name(self.device)

    def for_launcher(self, launcher: Launcher) -> dict[str, Any]:
        """Return the settings as `materialize_encoder` takes them."""
        processes = self.processes or launcher.usual_processes
        return {
            "device": self.device,
            "processes": processes,
            "accumulate": self.accumulate,
            "recompute": self.recompute,
        }


RecipeChanges = changes_form({name: make() for name, make in RECIPES.items()}, without=("name", "warm_start"))


class PretrainSettings(TrainingSettings):
    recipe: Literal["", *RECIPES] = Field(  # pyright: ignore[reportInvalidTypeForm]
        default="",
        description="How to train. Empty: ECG_RETRAIN_RECIPE, or the champion's recipe, or that of the last training, "
        "or demo if nothing was trained yet.",
    )
    changes: RecipeChanges | None = Field(  # pyright: ignore[reportInvalidTypeForm]
        default={},
        validate_default=True,
        description="Fields of the recipe to change, such as {steps: 200, jepa.encoder.dim: 120}. Numbers are written "
        "without quotes, and what was `none` in earlier forms is null.",
    )
    warm_start: str = Field(
        default="",
        description="A registered encoder to start from, such as models:/ecg-encoder@champion. Empty: random weights, "
        "or, if `recipe` is empty too, what ECG_RETRAIN_START says.",
    )

    def refuse(self) -> None:
        super().refuse()
        if self.recipe:
            recipe = recipe_named(self.recipe, self.changed)
            recipe.require_even_shares(processes=self.processes or 1, accumulate=self.accumulate)

    @property
    def changed(self) -> dict[str, Any]:
        """The changed fields of the recipe, as `recipe_named` takes them."""
        return (
            {}
            if self.changes is None
            else {name: getattr(self.changes, name) for name in self.changes.model_fields_set}
        )
