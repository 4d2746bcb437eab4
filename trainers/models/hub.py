"""Whether published weights can be had, found out before anything waits for them."""

import urllib.error
import urllib.request

from huggingface_hub import constants, try_to_load_from_cache
from timm.models import get_pretrained_cfg

_FILES = ("model.safetensors", "pytorch_model.bin")


def check(name: str, seconds: float = 10.0) -> None:
    """Refuse timm's weights of ``name`` if they are not in the cache and the hub does not answer within ``seconds``.

    The hub's own client would try again for minutes.  Errors: ``ValueError``.
    """
    cfg = get_pretrained_cfg(name)
    repository = cfg and cfg.hf_hub_id
    if not repository or any(isinstance(try_to_load_from_cache(repository, file), str) for file in _FILES):
        return
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _silence(constants.ENDPOINT, seconds)
    if reason:
        raise ValueError(
            f"model.weights='timm': the weights of {name!r} are not in the cache and cannot be fetched ({reason}); "
            "where the hub cannot be reached, set model.weights to a local copy of the model.safetensors"
        )


def _silence(endpoint: str, seconds: float) -> str:
    """Why ``endpoint`` does not answer; empty if it does, whatever it says."""
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=seconds).close()
    except urllib.error.HTTPError:
        return ""
    except OSError as error:
        return f"{endpoint}: {getattr(error, 'reason', error)}"
    return ""
