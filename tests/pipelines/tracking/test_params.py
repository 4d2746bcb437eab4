from pipelines.tracking.params import NAME_LIMIT, VALUE_LIMIT, fit_name, flatten


def test_nested_names_are_joined_by_dots():
    config = {
        "objective": {"_target_": "a.B", "penalties": [{"norm": 1}, {"norm": 2}]},
        "size": [3, 32, 32],
        "none": None,
        "empty": {},
    }
    assert flatten(config) == {
        "objective._target_": "a.B",
        "objective.penalties.0.norm": "1",
        "objective.penalties.1.norm": "2",
        "size": "[3, 32, 32]",
        "none": "None",
        "empty": "{}",
    }


def test_credentials_are_hidden():
    flat = flatten({"tracking": {"uri": "http://me:pw@host"}, "storage": {"secret_key": "s"}})
    assert flat == {"tracking.uri": "http://***@host", "storage.secret_key": "***"}


def test_long_values_and_odd_names_fit_and_stay_apart():
    long = flatten({"a": "x" * 7000, "b": "x" * 7001})
    assert all(len(value) <= VALUE_LIMIT for value in long.values())
    assert "7000 characters" in long["a"]
    assert long["a"][-20:] != long["b"][-20:]
    assert fit_name("loss (train) é") == "loss _train_ _"
    names = {fit_name("n" * 300), fit_name("n" * 301)}
    assert len(names) == 2
    assert all(len(name) <= NAME_LIMIT for name in names)
