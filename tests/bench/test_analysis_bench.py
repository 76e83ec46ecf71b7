"""`hpcddl bench analysis` measures products, landscapes and diagnostics; numbers are sane."""

import json
import math

from tests.conftest import Launch

TINY = ("--batch", 2, "--samples", 4, "--points", 1, "--rounds", 1)


def test_measures_everything(hpcddl: Launch) -> None:
    done = hpcddl("bench", "analysis", *TINY, "--json", ranks=2)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ranks"] == 2
    assert set(result["products"]) == set(result["diagnostics"]) == {"resnet20", "bilstm"}
    for product in result["products"].values():
        assert all(math.isfinite(value) and value > 0 for value in product.values())
    landscape = result["landscape"]
    assert landscape["seconds_per_point"] > 0
    assert landscape["speed_up"] > 0
    for diagnostics in result["diagnostics"].values():
        assert diagnostics["gradients_seconds"] > 0
        assert math.isfinite(diagnostics["own_percent"])


def test_refuses_batches_without_statistics(hpcddl: Launch) -> None:
    done = hpcddl("bench", "analysis", "--batch", 1, ranks=1)
    assert done.returncode == 2
    assert "--batch: 1: must be a whole number, at least 2" in done.stderr
