"""karat.exact: integers are equal or not, shapes too; an index may differ where the golden's values tie."""

import math
import re

import numpy as np
import pytest

from karat.compare import Flat, compare
from karat.exact import compare_exactly, tied_indices

INF = math.inf


def tied(candidate, golden, values, *, rtol=0.0, atol=0.0625, sequential=False):
    """Judge ties of values that may be off by atol + rtol * |value|, by default within 2 * atol = 1/8 of each other."""
    candidate, golden, values = np.array(candidate), np.array(golden), np.array(values, np.float64)
    with np.errstate(invalid="ignore"):  # 0 times an infinity
        allowed = atol + rtol * np.abs(values)
    found = tied_indices(candidate, golden, values, allowed, sequential=sequential)
    assert found.shape == golden.shape
    assert found.dtype == bool
    return found.tolist()


@pytest.mark.parametrize(
    "shapes", [((3,), (1, 3)), ((), (1,)), ((3, 1), (3, 3)), ((2, 3), (3, 2)), ((0,), (0, 1))], ids=str
)
def test_shapes_are_never_broadcast(shapes):
    """A candidate of another shape is an error, also where NumPy would broadcast it."""
    candidate, golden = (np.ones(shape) for shape in shapes)
    message = re.escape(f"candidate {candidate.shape} and golden {golden.shape} differ in shape")
    with pytest.raises(ValueError, match=message):
        compare(candidate, golden, Flat(1, 1))
    with pytest.raises(ValueError, match=message):
        compare_exactly(candidate.astype(int), golden.astype(int))


def test_a_scalar_is_compared_like_any_array():
    """The index of a scalar's only element is ()."""
    found = compare(np.array(2.0), np.array(1.0), Flat(0, 0.5))
    assert (found.elements, found.mismatched, found.worst, found.candidate, found.golden) == (1, 1, (), 2.0, 1.0)
    assert compare_exactly(np.array(3), np.array(2)).worst == ()


def test_an_empty_array_has_no_elements():
    """Nothing is judged of an empty array, and the statistics say so."""
    for found in (
        compare(np.ones((0, 3)), np.ones((0, 3)), Flat(0, 0)),
        compare_exactly(np.ones(0, int), np.ones(0, int)),
    ):
        assert (found.elements, found.mismatched, found.used, found.rms_abs, found.worst) == (0, 0, 0.0, 0.0, None)


@pytest.mark.parametrize(
    ("candidate", "golden", "where"),
    [
        (np.array([1, 2, 4]), np.array([1, 2, 3]), (2,)),
        (np.array([[0, 5]], np.uint8), np.array([[1, 5]]), (0, 0)),
        (np.array([True, False]), np.array([True, True]), (1,)),
        (np.array([2**63], np.uint64), np.array([2**63 - 1]), (0,)),
        (np.array([2**64 - 1], np.uint64), np.array([-1]), (0,)),
    ],
    ids=["int64", "uint8", "bool", "beyond int64", "wrapped"],
)
def test_integers_and_booleans_are_equal_or_not(candidate, golden, where):
    """Integers, booleans, indices: exact, whatever their width."""
    found = compare_exactly(candidate, golden)
    assert (found.mismatched, found.elements, found.used) == (1, golden.size, INF)
    assert found.max_abs == abs(float(candidate[where]) - float(golden[where])) or candidate.dtype == np.uint64
    assert (found.max_rel, found.rms_abs, found.nonfinite) == (0, 0, 0)
    assert (found.worst, found.candidate, found.golden) == (where, int(candidate[where]), int(golden[where]))
    assert compare_exactly(golden, golden).mismatched == 0


def test_accepted_differences_are_no_mismatches():
    """What ties may differ; what differs elsewhere is found."""
    accepted = np.array([True, True, False, False])
    found = compare_exactly(np.array([9, 1, 9, 3]), np.array([0, 1, 2, 3]), accepted=accepted)
    assert (found.mismatched, found.worst) == (1, (2,))


@pytest.mark.parametrize(
    ("judged", "elements", "mismatched", "worst"),
    [
        ([[True], [False]], 2, 1, (0, 1)),
        ([True, False], 2, 1, (1, 0)),
        ([False, False], 0, 0, None),
        (True, 4, 2, (0, 1)),
    ],
    ids=["rows", "columns", "nothing", "everything"],
)
def test_integers_in_padding_do_not_count(judged, elements, mismatched, worst):
    """`judged` broadcasts to the shape, as for floats; elsewhere a candidate may hold anything."""
    found = compare_exactly(np.array([[1, 9], [9, 4]]), np.array([[1, 2], [3, 4]]), judged=np.array(judged))
    assert (found.elements, found.mismatched, found.worst) == (elements, mismatched, worst)


def test_nothing_accepted_is_nothing_excused():
    """Without ties every difference counts."""
    assert compare_exactly(np.array([1, 0, 0]), np.array([1, 2, 3]), accepted=np.zeros(3, bool)).mismatched == 2


@pytest.mark.parametrize(
    ("values", "candidate", "rtol", "atol", "expected"),
    [
        ([1, 5, 5.125, 3], 1, 0, 0.0625, True),
        ([1, 5, 5.125, 3], 1, 0, 0.0624, False),
        ([1, 5, 5.125, 3], 3, 0, 0.0625, False),
        ([1, 5, 5, 3], 1, 0, 0, True),
        ([0, 3, 4, 0], 1, 0.125, 0, False),
        ([0, 3, 4, 0], 1, 0.1875, 0, True),
        ([0, 4, 3, 0], 1, 0.1875, 0, True),
        ([0, 3, -4, 0], 1, 0.1875, 0, False),
        ([0, 3, 4, 0], 1, 0.125, 0.0625, True),
        ([1, 5, 5, 3], -3, 0, 1, False),
        ([1, 5, 5, 3], 4, 0, 100, False),
        ([1, math.nan, 5, 3], 1, 0, 100, False),
    ],
    ids=["tie", "just not", "not", "equal", "small", "rtol", "either way", "sign", "both", "negative", "beyond", "NaN"],
)
def test_an_index_ties_where_the_values_are_within_two_tolerances(values, candidate, rtol, atol, expected):
    """Two values tie if they differ by at most the root of 2 times the root of the sum of their allowances' squares."""
    assert tied([candidate], [2], [values], rtol=rtol, atol=atol) == [expected]


@pytest.mark.parametrize(("apart", "expected"), [(10.0, True), (10.001, False), (-10.0, True), (-10.001, False)])
def test_a_tie_counts_what_both_values_may_be_off_by(apart, expected):
    """Both values may err: with allowances of 1 and 7 they tie within sqrt(2 * (1 + 49)) = 10, whichever was chosen."""
    values, allowed = np.array([[0.0, apart]] * 2), np.array([[1.0, 7.0]] * 2)
    assert tied_indices(np.array([1, 0]), np.array([0, 1]), values, allowed).tolist() == [expected] * 2


def test_a_top_k_has_the_allowance_of_each_of_its_values():
    """Of several choices from one row each is judged by what its own value may be off by."""
    values, allowed = np.array([[5.0, 4, 3, 2]]), np.array([[0.0, 0, 1, 1]])
    found = tied_indices(np.array([[1, 3]]), np.array([[0, 2]]), values, allowed)
    assert found.tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        ([0, 1, 2], [True, True, True]),
        ([0, 2, 1], [True, True, True]),
        ([0, 2, 3], [True, True, True]),
        ([1, 0, 2], [False, False, True]),
        ([0, 1, 4], [True, True, False]),
        ([0, 2, 2], [True, False, False]),
        ([0, 2, 5], [True, True, False]),
        ([0, -4, 2], [True, False, True]),
    ],
    ids=["the golden", "swapped ties", "another tie", "swapped, no ties", "no tie", "twice", "beyond", "negative"],
)
def test_a_top_k_may_swap_what_ties(candidate, expected):
    """Of the top k of a row each entry is judged by its value; an index twice in a row ties with nothing."""
    assert tied([candidate], [[0, 1, 2]], [[9, 7, 7, 7, 1]]) == [expected]


def test_an_index_outside_does_not_spoil_the_others():
    """An index outside 0...n-1 ties with nothing; it is not mistaken for another index."""
    assert tied([[7, 0]], [[1, 2]], [[5, 9, 5]]) == [[False, True]]


def test_each_row_of_a_top_k_is_judged_by_its_own_values():
    """Leading axes are rows: (2, 3, k) indices into (2, 3, n) values."""
    values = np.arange(24.0).reshape(2, 3, 4)
    values[1, 2] = [0, 0, 7, 7]
    golden = np.broadcast_to([3, 2], (2, 3, 2))
    expected = [[[False, False]] * 3, [[False, False]] * 2 + [[True, True]]]
    assert tied(golden[..., ::-1], golden, values) == expected


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        ([1, 0, 0, 0], [False, False, False, False]),
        ([1, 2, 0, 0], [False, True, True, True]),
        ([1, 2, 3, 1], [False, True, True, True]),
        ([1, 2, 9, -9], [False, True, True, True]),
        ([0, 2, 0, 0], [False, False, False, False]),
        ([1, 1, 0, 1], [False, False, False, True]),
    ],
    ids=["equal", "tie", "tie and more", "tie and nonsense", "no tie first", "the last one"],
)
def test_after_the_first_accepted_tie_all_is_accepted(candidate, expected):
    """Entries that depend on earlier ones are not judged after an accepted tie; after a mistake nothing is excused."""
    values = [[1, 9, 1, 1], [0, 5, 5, 1], [9, 0, 0, 0], [7, 7, 0, 0]]
    golden = [1, 1, 0, 0]
    assert tied(candidate, golden, values, sequential=True) == expected
    assert tied([[candidate, golden]], [[golden, golden]], [[values, values]], sequential=True) == [
        [expected, [False] * 4]
    ]


def test_a_sequential_choice_from_one_row_is_judged_by_its_own_row():
    """`golden` may have another length along the last axis than `values`, sequential or not: rows stay rows."""
    values = [[5, 5, 1, 0], [9, 3, 3, 0], [0, 1, 2, 9]]
    golden, candidate = [[0, 2], [0, 1], [3, 2]], [[1, 2], [0, 2], [2, 3]]
    assert tied(candidate, golden, values, sequential=True) == [[True, True], [False, True], [False, False]]


@pytest.mark.parametrize("rtol", [0.0, 0.01])
@pytest.mark.parametrize("candidate", [[0, 1], [0, 2]], ids=["the same", "another"])
def test_equal_infinities_tie(candidate, rtol):
    """A masked value is -inf: where fewer than k are left, any of the masked ones is as good as another."""
    assert tied([candidate], [[0, 1]], [[1, -INF, -INF]], rtol=rtol) == [[True, True]]


@pytest.mark.parametrize("rtol", [0.0, 0.01])
@pytest.mark.parametrize("chosen", [INF, -INF])
def test_a_finite_value_ties_with_no_infinity(chosen, rtol):
    """An infinite value does not make the tolerance infinite, be it the golden's choice or the candidate's."""
    assert tied([0, 0], [1, 1], [[chosen, 2, -chosen]] * 2, rtol=rtol) == [False, False]
    assert tied([1, 2], [0, 0], [[chosen, 2, -chosen]] * 2, rtol=rtol) == [False, False]
