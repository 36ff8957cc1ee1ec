"""Which names a cell needs from the notebook."""

import pytest

from tuttilab.magics.submission.names import needed_names


@pytest.mark.parametrize(
    ("source", "needed"),
    [
        ("df.mean()", {"df"}),
        ("x = 1\nx", set()),
        ("x = x + 1", {"x"}),
        ("x += 1", {"x"}),
        ("del x", {"x"}),
        ("x = 1\ndel x\nx", {"x"}),
        ("a.b.c = d[e]", {"a", "d", "e"}),
        ("a, *b = c\nb", {"c"}),
        ("f'{name!r:{width}}'", {"name", "width"}),
        ("import numpy as np, os.path\nnp.x, os", set()),
        ("with lock as held:\n    held", {"lock"}),
        ("x: int\nx", {"int", "x"}),
        ("(y := 5) and y", set()),
    ],
)
def test_straight_lines(source: str, needed: set[str]) -> None:
    assert needed == set(needed_names(source))


@pytest.mark.parametrize(
    ("source", "needed"),
    [
        ("if c:\n    q = 1\nelse:\n    q = 2\nq", {"c"}),
        ("if c:\n    q = 1\nq", {"c", "q"}),
        ("for i in r:\n    y = i\ny", {"r", "y"}),
        ("for x in x:\n    pass", {"x"}),
        ("while go:\n    n = 1\nn", {"go", "n"}),
        ("try:\n    import foo\nexcept ImportError as e:\n    foo = None\nfoo", {"ImportError"}),
        ("try:\n    a = 1\nfinally:\n    b = a\nb", {"a"}),
        ("match cmd:\n    case {'k': v, **rest}:\n        v, rest\n    case [h, *t] if h > lim:\n        t", {"cmd", "lim"}),
    ],
)
def test_what_a_branch_binds_counts_afterwards_only_if_every_branch_does(source: str, needed: set[str]) -> None:
    assert needed == set(needed_names(source))


@pytest.mark.parametrize(
    ("source", "needed"),
    [
        ("def f(a, b=c):\n    g = a\n    def h():\n        return z + g\n    return h()\nf(1)", {"c", "z"}),
        ("def fib(n):\n    return fib(n - 1)", set()),
        ("def f():\n    global total\n    total += 1", {"total"}),
        ("lambda u: u + v", {"v"}),
        ("[i * k for i in xs if i > t for j in i]", {"k", "xs", "t"}),
        ("{k: v for k, v in d.items()}", {"d"}),
        ("class A(B):\n    x = 1\n    limit = limit\n    def f(self):\n        return x", {"B", "limit", "x"}),
        ("@cached\ndef f(x: Shape):\n    return x", {"cached", "Shape"}),
        ("async def g():\n    async for x in src:\n        await x", {"src"}),
        ("class A:\n    v = [q for q in w]", {"w"}),
    ],
)
def test_names_of_nested_scopes(source: str, needed: set[str]) -> None:
    assert needed == set(needed_names(source))


def test_order_is_that_of_first_use() -> None:
    assert needed_names("b + a\nc + b") == ("b", "a", "c")


def test_no_python_is_a_syntax_error() -> None:
    with pytest.raises(SyntaxError):
        needed_names("1 +")
