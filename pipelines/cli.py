"""``holdfast <verb> [KEY=VALUE ...]``: the one place that knows every verb."""

import argparse
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

OK, FAILURE, MISUSE, REFUSED, LOST, STOPPED = range(6)

VERBS = {
    "train": "train a model by a recipe, track it and register it",
    "evaluate": "attack a model, from anywhere, by AutoAttack, and report how much it withstands",
    "compare": "two evaluations of the same images, example by example",
    "tune": "search settings of a training, prove the best over seeds, register the winner",
    "retrain": "train, gate and promote anew if data, recipe, code or the champion's accuracy changed",
    "schedule": "retrain again and again on this machine, or print the line for crontab",
    "promote": "let the gate attack the challenger, and make it champion if it passes",
    "rollback": "make the previous champion champion again",
    "cost": "GPU hours and money of runs, a search or a registered model, and what pre-emption wasted",
    "models": "what is registered: numbers, aliases, doubts, where it comes from",
    "submit": "run any of these lines on a cluster, and follow it to its end: holdfast submit -- train recipe=NAME",
    "status": "how a submitted job is, and why it does not start",
    "logs": "follow a submitted job",
    "cancel": "end a submitted job",
    "list": "the submitted jobs",
    "render": "the Kubernetes objects that submit or a schedule would create, as YAML",
    "quickstart": "the whole job on the embedded digits: standard against GradNorm, one table, one registered model",
    "recipes": "what there is to choose from, one line each",
    "doctor": "what is installed, reachable and missing",
}

CLUSTER = ("submit", "status", "logs", "cancel", "list", "render")
"""Verbs of the other roof, ``k8s``: they need no torch, and know all others as command lines."""

CONFIGURED = ("train", "tune", "evaluate", "promote", "rollback", "models", "cost", "retrain", "schedule")

EPILOG = """examples:
  holdfast recipes
  holdfast train recipe=digits_gradnorm epochs=30 register_as=digits
  holdfast train recipe=cifar10_gradnorm data.path=/data/cifar10 workers=2 threat.eps=4/255
  holdfast train --help

exit codes: 0 ok, 1 failure, 2 misuse, 3 a gate refused, 4 lost, 5 stopped"""


class Parser(argparse.ArgumentParser):
    """argparse with our exit code, our one-line errors, and the nearest verb."""

    def error(self, message: str) -> NoReturn:
        print(f"holdfast: {message}", file=sys.stderr)
        raise SystemExit(MISUSE)


def parser() -> Parser:
    top = Parser(
        prog="holdfast",
        description="Train image classifiers that hold steady when their input is perturbed.",
        epilog="verbs:\n" + "\n".join(f"  {verb:<12}{text}" for verb, text in VERBS.items()) + "\n\n" + EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="holdfast <verb> [KEY=VALUE ...] [options]",
    )
    top.add_argument("verb", help=argparse.SUPPRESS)
    top.add_argument("overrides", nargs="*", help="settings of the verb, KEY=VALUE")
    top.add_argument("--json", type=Path, metavar="FILE", help="leave the outcome here for a script")
    top.add_argument("--recipes", type=Path, metavar="DIR", help="a folder of your own recipes (recipe/NAME.yaml)")
    top.add_argument("--force", action="store_true", help="of retrain and schedule: train though nothing has changed")
    top.add_argument("--no-wait", action="store_true", help="of submit: do not follow the job")
    top.add_argument("--entrypoint-code", action="store_true", help="of submit, logs, status: exit as the command did")
    top.add_argument("--debug", action="store_true", help="tracebacks and the libraries' own messages")
    top.add_argument("--version", action="version", version=f"holdfast {_version()}")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) > 1 and arguments[0] in VERBS and {"--help", "-h"} & set(arguments):
        return _verb_help(arguments[0])
    if not arguments:
        parser().print_help()
        return MISUSE
    own, command = arguments, []
    if "--" in arguments and arguments[0] in CLUSTER:
        own, command = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    args = parser().parse_intermixed_args(own)
    return _guarded(args, command)


def _guarded(args: argparse.Namespace, command: Sequence[str]) -> int:
    """Run the verb; a person's mistake, a failure and a stop each end as one message and their own code."""
    from k8s.errors import Ended
    from pipelines.errors import Failure, Lost, Misuse, Refused, Stopped

    if not args.debug:
        warnings.filterwarnings("ignore")
    signal.signal(signal.SIGTERM, _stop)
    try:
        if args.verb in CLUSTER:
            return _cluster(args, command)
        _run(args)
        return OK
    except Ended as error:
        return _say(error, error.code, args.debug)
    except Misuse as error:
        return _say(error, MISUSE, args.debug)
    except Failure as error:
        return _say(error, FAILURE, args.debug)
    except Refused as error:
        return _say(error, REFUSED, args.debug)
    except Lost as error:
        return _say(error, LOST, args.debug)
    except (KeyboardInterrupt, Stopped):
        print("holdfast: stopped; the same command continues where it was", file=sys.stderr)
        return STOPPED
    except ModuleNotFoundError as error:
        extra = "submit" if args.verb in CLUSTER else "train"
        return _say(error, FAILURE, args.debug, f"{args.verb} needs {error.name}: pip install 'holdfast[{extra}]'")
    except Exception as error:
        hint = "" if args.debug else "\n(run again with --debug for the traceback)"
        return _say(error, FAILURE, args.debug, f"{type(error).__name__}: {error}{hint}")


def _cluster(args: argparse.Namespace, command: Sequence[str]) -> int:
    from k8s import verbs
    from k8s.errors import Misuse, nearest

    if args.force or args.recipes:
        raise Misuse(
            f"--force and --recipes are for the command that is run: put them after --, not before ({args.verb})"
        )
    runnable = [verb for verb in VERBS if verb not in CLUSTER]
    if command and command[0] not in runnable:
        raise Misuse(f"{command[0]}: nothing that can be submitted{nearest(command[0], runnable)}")
    return verbs.run(args.verb, args.overrides, command, args.json, not args.no_wait, args.entrypoint_code)


def _run(args: argparse.Namespace) -> None:
    from rich.console import Console

    from pipelines import build
    from pipelines.errors import Misuse

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    if args.verb not in VERBS:
        raise Misuse(f"{args.verb}: unknown verb{build.nearest(args.verb, list(VERBS))}")
    if args.force and args.verb not in ("retrain", "schedule"):
        raise Misuse(f"--force is for retrain and schedule: {args.verb} has nothing to skip")
    if args.verb in ("tune", "retrain", "schedule") and any("trust=" in line for line in args.overrides):
        sys.path.append(os.getcwd())  # a trusted package may lie beside the user, as it may for `python -m`
    if args.verb == "recipes":
        from pipelines.recipes import recipes

        recipes(args.overrides, args.recipes, console)
    elif args.verb == "doctor":
        from pipelines.doctor import doctor

        doctor(args.overrides, console)
    elif args.verb == "quickstart":
        from pipelines.quickstart import quickstart

        quickstart(args.overrides, console, debug=args.debug)
    elif args.verb == "compare":
        from pipelines.compare import compare

        if len(args.overrides) != 2:
            raise Misuse("compare takes two evaluations: holdfast compare FOLDER_A FOLDER_B")
        a, b = args.overrides
        compare(a, b, console, str(args.json) if args.json else None)
    elif args.verb == "evaluate":
        from pipelines.compose import compose

        config = compose("evaluate", args.overrides, args.recipes)
        if config["trust"]:
            sys.path.append(os.getcwd())
        from pipelines.evaluate import evaluate

        config["json"] = str(args.json) if args.json else config["json"]
        evaluate(config, console, shlex.join(["holdfast", "evaluate", *args.overrides]), debug=args.debug)
    elif args.verb == "tune":
        from pipelines.tune import tune

        tune(args.overrides, console, args.recipes, str(args.json) if args.json else None, debug=args.debug)
    elif args.verb == "retrain":
        from pipelines.retrain import retrain

        where = str(args.json) if args.json else None
        retrain(args.overrides, console, args.recipes, where, force=args.force, debug=args.debug)
    elif args.verb == "schedule":
        from pipelines.schedule import schedule

        schedule(args.overrides, _options(args), console, args.recipes)
    elif args.verb == "cost":
        from pipelines.cost import cost

        cost(args.overrides, console, args.recipes, str(args.json) if args.json else None)
    elif args.verb in ("promote", "rollback", "models"):
        from pipelines.compose import compose

        config = compose(args.verb, args.overrides, args.recipes)
        config["json"] = str(args.json) if args.json else config["json"]
        _registry(args, config, console)
    elif args.verb == "train":
        from pipelines.compose import compose

        config = compose("train", args.overrides, args.recipes)
        if config["trust"]:
            sys.path.append(os.getcwd())  # a trusted package may lie beside the user, as it may for `python -m`
        from pipelines.train import train  # heavy imports only once the config is good

        config["json"] = str(args.json) if args.json else config["json"]
        train(config, console, debug=args.debug)


def _options(args: argparse.Namespace) -> list[str]:
    """As they were given, for a process that is to have them too."""
    valued = {"--json": args.json, "--recipes": args.recipes and args.recipes.resolve()}
    given = [word for name, value in valued.items() if value for word in (name, str(value))]
    return given + [name for name, on in (("--force", args.force), ("--debug", args.debug)) if on]


def _registry(args: argparse.Namespace, config: dict[str, Any], console: Any) -> None:
    if args.verb == "promote":
        from pipelines.promote import promote

        promote(config, console, args.recipes, debug=args.debug)
    elif args.verb == "rollback":
        from pipelines.rollback import rollback

        rollback(config, console)
    else:
        from pipelines.models import models

        models(config, console)


def _verb_help(verb: str) -> int:
    print(f"holdfast {verb}: {VERBS[verb]}\n")
    if verb in CLUSTER:
        from k8s import verbs

        print(verbs.usage(verb))
        return OK
    choices = {
        "train": "recipe data model objective optimizer threat",
        "evaluate": "suite data attack beyond",
        "promote": "policy",
        "retrain": "policy recipe",
        "tune": "search",
        "cost": "prices",
    }
    if verb in CONFIGURED:
        from pipelines.compose import CONFIGS

        print((CONFIGS / f"{verb}.yaml").read_text())
    if verb in choices:
        print(f"choices: holdfast recipes {choices[verb]}")
    print("options: --json FILE  --recipes DIR  --debug")
    return OK


def _say(error: Exception, code: int, debug: bool, text: str = "") -> int:
    from pipelines.redact import redact_text

    if debug:
        print(redact_text("".join(traceback.format_exception(error))), file=sys.stderr)
    print(f"holdfast: {redact_text(text or str(error))}", file=sys.stderr)
    return code


def _stop(*_: Any) -> NoReturn:
    """SIGTERM ends as SIGINT does: Ray lets no other exception out of a wait.  A second one must not end the ending."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    raise KeyboardInterrupt


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("holdfast")
    except PackageNotFoundError:
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())
