import pytest

from pipelines.redact import redact, redact_text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("http://me:pa:ss@host:5000/x", "http://***@host:5000/x"),
        (
            "postgresql+psycopg://me:pw@db/x?password=abc&sslmode=on",
            "postgresql+psycopg://***@db/x?password=***&sslmode=on",
        ),
        ("cannot GET https://tok@h/a and s3://k:s@b/c", "cannot GET https://***@h/a and s3://***@b/c"),
        (
            "https://b.s3/x?X-Amz-Credential=AKIA&X-Amz-Signature=f00&v=1",
            "https://b.s3/x?X-Amz-Credential=***&X-Amz-Signature=***&v=1",
        ),
        ("postgresql://u:p@ss@h/db", "postgresql://***@h/db"),
        ("postgresql://u:p@@s@h:5432/db?a@b", "postgresql://***@h:5432/db?a@b"),
        ("postgresql://u:p/w@h/db", "postgresql://***@h/db"),
        ("{'uri': 'http://u:p@ss@h', 'to': 'a@b'}", "{'uri': 'http://***@h', 'to': 'a@b'}"),
        ("http://u:p@ss@h:1, or http://v@w", "http://***@h:1, or http://***@w"),
        ("http://host:5000/a@b 'http://h' (user@x)", "http://host:5000/a@b 'http://h' (user@x)"),
        ("s3://bucket/a@b.jpg", "s3://bucket/a@b.jpg"),
        ("models:/digits@champion", "models:/digits@champion"),
        ("mail a@b.c, eps=8/255", "mail a@b.c, eps=8/255"),
    ],
)
def test_text_loses_its_credentials_only(text, clean):
    assert redact_text(text) == clean


def test_the_values_of_this_process_credentials_go_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "on")  # too short to be told from a word
    assert redact_text("signed with wJalrXUtnFEMI on monday") == "signed with *** on monday"


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "api_token",
        "PASSWORD",
        "db.password",
        "client_secret",
        "aws_secret_access_key",
        "api_key",
        "apiKey",
        "key",
        "accessKeyId",
        "credentials",
    ],
)
def test_a_secret_name_hides_its_value_at_any_depth(name):
    config = {"data": {"sources": [{"path": "x", name: "hunter2"}]}, name: {"nested": "hunter2"}}
    assert "hunter2" not in str(redact(config))
    assert redact(config)["data"]["sources"][0]["path"] == "x"


def test_innocent_settings_stay():
    config = {"class_token": True, "monkey": "a", "keypoints": 17, "seed": 3, "weights": None, "paths": ["a", "b"]}
    assert redact(config) == config
