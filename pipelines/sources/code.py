"""Anybody's own network: a function that makes it, or a pickle of it.  Both run code, so both need trust."""

import functools
import importlib
import re
from collections.abc import Callable
from typing import Any

from torch import nn

from pipelines.errors import Failure, Misuse, first_line
from pipelines.sources.candidate import Found, Trust, trusts
from pipelines.storage import files
from trainers.models import pickles

_FUNCTION = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*(?:\.[^\W\d]\w*)*)")


def is_function(source: str) -> bool:
    """Whether ``source`` is spelled ``package.module:function``."""
    return _FUNCTION.fullmatch(source) is not None


def function(source: str, setting: str, trust: Trust) -> Found:
    """The module that ``package.module:function`` returns when it is called without arguments."""
    package = source.partition(":")[0].partition(".")[0]
    if not trusts(trust, package):
        raise Misuse(f"{setting} runs that code. If you trust it, add trust=[{package}]")
    make = functools.partial(_call, _imported(source, setting), setting)
    return Found(make(), source, source, setting, again=make)


def _imported(source: str, setting: str) -> Callable[[], Any]:
    module, _, path = source.partition(":")
    try:
        made: Any = functools.reduce(getattr, path.split("."), importlib.import_module(module))
    except (Exception, SystemExit) as error:
        raise Misuse(
            f"{setting} cannot be imported ({type(error).__name__}: {first_line(error)}); correct the name, install "
            "its package, or run in the folder that holds it"
        ) from error
    if isinstance(made, nn.Module) or not callable(made):
        raise Misuse(f"{setting} is no function but {type(made).__name__}: name one that returns the nn.Module")
    return made


def _call(made: Callable[[], Any], setting: str) -> nn.Module:
    try:
        model = made()
    except (Exception, SystemExit) as error:
        raise Misuse(
            f"{setting} failed when it was called without arguments ({type(error).__name__}: {first_line(error)}); "
            "let it build and return the network by itself"
        ) from error
    if not isinstance(model, nn.Module):
        raise Misuse(f"{setting} returned no nn.Module but {type(model).__name__}: let it return the network")
    return model


def pickled(source: str, setting: str, trust: Trust, where: str) -> Found:
    """A whole network as ``torch.save(model)`` wrote it.  Which code that runs only the file knows: ``trust=true``."""
    own = f"for a state dict, give {where}.name (a timm model) and {where}.weights={source}"
    if trust is not True:
        raise Misuse(
            f"{setting} is a pickle, and a whole network in it runs code when it is read: if you trust it, add "
            f"trust=true; {own}, which runs none"
        )
    try:
        model = pickles.load(source, files(source), trust=True, setting=f"{where}.source")
    except (Failure, ValueError, OSError) as error:
        raise Misuse(str(error)) from error
    if not isinstance(model, nn.Module):
        raise Misuse(f"{setting} holds no nn.Module but {type(model).__name__}; {own}")
    return Found(model, source.rpartition("/")[2], source, setting)
