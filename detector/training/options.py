"""The options of training runs: the fields of their configurations, and short names for the commonest."""

from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

import docstring_parser
from jsonargparse import ActionYesNo, Namespace

from detector.command_line import ArgumentParser

Configuration = TypeVar("Configuration")
SHORT = ("annotations", "images")  # of the data: what everybody has to name


def add_training_options(parser: ArgumentParser, configuration: type) -> None:
    """An option `--batch-size` for the field `batch_size`, `--svm.passes` for those of parts.

    Types, defaults and explanations are the dataclass's own. Data also has the short `--annotations`.
    """
    texts = {
        item.arg_name: item.description for item in docstring_parser.parse(configuration.__doc__ or "").params
    }
    types = get_type_hints(configuration)
    for field in fields(configuration):
        option, kind = f"--{field.name.replace('_', '-')}", types[field.name]
        if is_dataclass(kind):
            _add_part(parser, field.name, types[field.name])
        elif kind is bool:
            switch = ActionYesNo(no_prefix="no-")
            parser.add_argument(option, action=switch, default=_default(field), help=texts[field.name])
        else:
            parser.add_argument(option, type=kind, default=_default(field), help=texts[field.name])
    if _reads_boxes(configuration):
        for name in SHORT:
            parser.add_argument(
                f"--{name}", type=str, nargs="+", metavar="PATH", help=f"short for --data.{name}"
            )


def _add_part(parser: ArgumentParser, name: str, kind: type) -> None:
    """The options of a part; a list of words takes them one after the other, as everywhere."""
    types = get_type_hints(kind)
    lists = [field for field in fields(kind) if types[field.name] in (list[str], list[str] | None)]
    parser.add_class_arguments(kind, name, skip={field.name for field in lists})
    texts = {item.arg_name: item.description for item in docstring_parser.parse(kind.__doc__ or "").params}
    for field in lists:
        parser.add_argument(
            f"--{name}.{field.name}",
            type=str,
            nargs="+",
            metavar="PATH",
            default=_default(field),
            help=texts[field.name],
        )


def training_configuration(arguments: Namespace, configuration: type[Configuration]) -> Configuration:
    """The parsed options as a configuration."""
    values: dict[str, Any] = arguments.as_dict()
    for name in SHORT if _reads_boxes(configuration) else ():
        given = values.pop(name, None)
        if given is not None:
            _part("data", values)[name] = given
    return _built(configuration, values)


def _part(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """The options of a part, which are nothing else."""
    found = values[name]
    if not isinstance(found, dict):
        raise ValueError(f"{name} is {found}, but must be options, such as --{name}.* on the command line")
    return found


def _reads_boxes(configuration: type) -> bool:
    data = get_type_hints(configuration).get("data")
    return data is not None and set(SHORT) <= {field.name for field in fields(data)}


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _built(configuration: type[Configuration], values: dict[str, Any]) -> Configuration:
    """The dataclass of nested plain values; those of other options are left out."""
    types = get_type_hints(configuration)
    return configuration(
        **{
            name: _built(types[name], _part(name, values)) if is_dataclass(types[name]) else values[name]
            for name in (field.name for field in fields(configuration))  # type: ignore[arg-type]
        }
    )
