"""(g) The ablation of the stages on a real base model: named here, so that nobody takes it for done."""

from __future__ import annotations

from benchmarks.gpu.battery import Battery, CannotRunError


def run(battery: Battery) -> None:
    def make() -> dict:
        raise CannotRunError(
            "this project has no ablation to run, and a real base's weights do not come without the network"
        )

    battery.figure("the ablation on a real base", make)
