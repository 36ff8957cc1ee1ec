"""Whether an interpreter can read what the notebook's wrote: the same minor version of Python and major version of cloudpickle.

It runs in the interpreter that it judges: in the job at its start, and before the submit as ``python -c THIS TEXT JSON`` wherever
that interpreter is known and on this machine. So it has no import of ours, and nothing that an old Python could not read.
"""

import sys


def problem_of(about: dict) -> str:  # type: ignore[type-arg]  # as the docstring says
    """One sentence with both versions and what to do, empty without a problem.

    ``about``: ``python`` and ``cloudpickle``, the notebook's versions, and ``is_image``.
    """
    where = "the job's image" if about.get("is_image") else "the job"
    here = "{}.{}.{}".format(*sys.version_info[:3])
    wanted = about["python"]
    if here.split(".")[:2] != wanted.split(".")[:2]:
        way = "choose an image with it" if about.get("is_image") else "--python names another interpreter"
        return (
            f"The notebook runs Python {wanted} and {where} Python {here} ({sys.executable}): "
            f"a captured cell needs the same major and minor version; {way}."
        )
    wanted = about["cloudpickle"]
    try:
        import cloudpickle
    except ImportError:
        return f"The notebook runs cloudpickle {wanted} and {where} ({sys.executable}) has none: install cloudpickle there."
    if cloudpickle.__version__.split(".")[0] != wanted.split(".")[0]:
        return (
            f"The notebook runs cloudpickle {wanted} and {where} cloudpickle {cloudpickle.__version__} ({sys.executable}): "
            "a captured cell needs the same major version; install it there, or restart the kernel if its own was replaced."
        )
    return ""


if __name__ == "__main__":
    import json

    sys.stdout.write(problem_of(json.loads(sys.argv[1])))
