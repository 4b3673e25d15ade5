"""Only tests that say so start Ray: what `ray.init` meets in all others, in this process and in those it starts."""

from __future__ import annotations

from typing import Any, NoReturn

# Ray calls the function that this variable names, before it starts or joins anything.
VARIABLE = "RAY_RUNTIME_ENV_HOOK"
REFUSAL = f"{__name__}.refuse_ray"


def refuse_ray(runtime_env: dict[str, Any] | None) -> NoReturn:
    raise RuntimeError(
        "this test starts Ray: mark it with pytest.mark.ray (its file: pytestmark = pytest.mark.ray), so that "
        "`make test-fast` leaves it out"
    )
