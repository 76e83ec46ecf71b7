"""What is wrong with a value, in one line, from pydantic's account of it."""

from pydantic import ValidationError

from hpcddl.common.yaml_file import shown

_ALLOWED = {
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number below 2^63",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_unicode": "must be text in Unicode",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
}


def first_fault(error: ValidationError) -> str:
    """Names the first field that is wrong, its value and what is allowed."""
    fault = error.errors(include_url=False)[0]
    where = shown(".".join(str(part) for part in fault["loc"]))
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{where}: missing, and it has no default"
    if fault["type"] == "value_error":
        return f"{where}: {message}" if fault["loc"] else message
    if fault["type"] not in _ALLOWED:
        return f"{where}={shown(fault['input'])}: {message.replace('Input should', 'must')}"
    return f"{where}={shown(fault['input'])}: {_ALLOWED[fault['type']]}"
