"""The rules that a model keeps: those that its training table keeps, and those declared."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nelbo.rule_finding import declared_rule, find_rules
from nelbo.rules import Rule
from nelbo.schema import Schema

from .config import Config

Floats = NDArray[np.float64]


def with_rules(schema: Schema, x: Floats, config: Config) -> Schema:
    """The schema with the rules that its rows keep, and those that are declared. Where the schema
    names its rules, these and no others. `x` are all rows, as nelbo.rule_keeping.matrix_of gives
    them. Raises InvalidInput for a rule that cannot be read."""
    texts = list(config.rules)
    rules: list[Rule] = []
    if schema.rules is not None:
        texts = [*(rule.text for rule in schema.rules), *texts]
    elif config.find_rules:
        rules = list(find_rules(x, schema, config.rare))
    texts_of_rules = {rule.text for rule in rules}
    declared = [declared_rule(text, x, schema, config.rare) for text in texts]
    rules = [*(rule for rule in declared if rule.text not in texts_of_rules), *rules]
    return schema.model_copy(update={"rules": tuple(rules)})


def of_rules(schema: Schema) -> Iterator[str]:
    """Notices about rules that rows of the training table break."""
    for rule in schema.rules or ():
        if rule.broken:
            yield (
                f"{rule.broken:,} of {rule.rows:,} training rows break the rule {rule.text!r}; made"
                " rows keep it"
            )
