"""Verdicts to terminal text."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from karat import properties
from karat.errors import UsageError
from karat.gate import Finding
from karat.properties import Outcome
from karat.questions import Diagnosis
from karat.session import Report
from karat.suites import Repository
from karat.tolerances import Limits, Tolerance, read_tolerances
from karat.verdicts import DIVERGED, Test, Verdict

_FULL_BLOCKS = 3  # failing cases that are told in full, one for each first divergence; the others in a line
_SAME_REASON = 6  # cases of a suite, if not all, that are told in one line from more than these on
_MOST_NAMES = 4  # of checkpoints in a line
_MOST_GUESSES = 3  # names of mistakes in the sum of a suite
_USUAL = 0.1  # part of a suite's failing cases that have a name if it is the mistake
_NEAR_ONE = 0.05
"""How far from 1 the strength of a catalogued fault may be that is likely the mistake: where it is known well."""
_STANDARD_ERRORS = 3
"""The same, in standard errors, where it is not."""
_MOST_UNCERTAIN = 0.3
"""The same, at most: what a poor fit leaves uncertain makes no name likely."""
_AS_GOOD = 1.1
"""Two names fit equally well where one leaves over at most this many times what the other does."""
RUN_STATUSES = ("raised", "crashed", "timeout")  # said once a case, not once a checkpoint


def exit_code(report: Report, outcomes: Sequence[Outcome] = ()) -> int:
    """Return the exit code of the whole run, its properties with it: the worst of 3, 2, 4, 1, 5, else 0."""
    codes = {report.exit_code, properties.exit_code(outcomes)}
    return next(code for code in (3, 2, 4, 1, 5, 0) if code in codes)


def verdict_name(report: Report, outcomes: Sequence[Outcome] = ()) -> str:
    """Return the word for the whole run: `pass`, `fail` or `nothing-compared`."""
    return {0: "pass", 5: "nothing-compared"}.get(exit_code(report, outcomes), "fail")


# --- terminal --------------------------------------------------------------------------------------------------------


_Reason = tuple[str, str, bool]
"""A status, its reason, and whether it keeps the run from passing."""


def text(report: Report, repository: Repository, outcomes: Sequence[Outcome] = ()) -> str:
    """Return the report for people: properties, a line for each case and contract, then the failures, then the sum."""
    lines = [f"property {_property_text(outcome, repository)}" for outcome in outcomes]
    told: set[str] = set()  # first divergences
    earlier_texts: set[str] = set()
    for blocks in _by_suite(report):
        lines += _suite_lines(report, blocks, repository, told, earlier_texts)
    lines += [f"golden {finding}" for finding in report.findings]
    lines += _notes(report, repository)
    lines += _hints(report)
    lines += [line for blocks in _by_suite(report) for line in _suite_sum(report, blocks)]
    lines.append(_sum_line(report, outcomes))
    return printable("\n".join(lines))


def _by_suite(report: Report) -> list[list[list[Verdict]]]:
    """Return the verdicts of each case and contract, suite by suite."""
    return [
        [list(block) for _, block in groupby(suite, key=lambda verdict: (verdict.case, verdict.contract))]
        for _, suite in groupby(report.verdicts, key=lambda verdict: verdict.suite)
    ]


def _property_text(outcome: Outcome, repository: Repository) -> str:
    """Return what a property came to; of a violated one what must hold, and that it does not."""
    suite = repository.suites.get(outcome.place.partition("/")[0])
    about = next((entry.about for entry in suite.properties if entry.name == outcome.name), "") if suite else ""
    if outcome.status != "violated" or not about or not outcome.text.startswith(f"{about}: "):
        return outcome.line
    found = outcome.text.removeprefix(f"{about}: ")
    return f"{outcome.place}: {outcome.name}: violated: it must hold that {about}, and does not: {found}"


def _suite_lines(
    report: Report,
    blocks: Sequence[Sequence[Verdict]],
    repository: Repository,
    told: set[str],
    earlier_texts: set[str],
) -> list[str]:
    """Tell one suite: what many cases have in common once, the others case by case."""
    lines: list[str] = []
    common = _common(report, blocks)
    full = _told_in_full(report, [block for block in blocks if _one_reason(report, block) not in common], told)
    for verdicts in blocks:
        key = _one_reason(report, verdicts)
        failures = [verdict for verdict in verdicts if report.fails(verdict)]
        if key is not None and key in common:
            if verdicts is common[key][0]:
                lines += _told_once(key, common[key], earlier_texts)
            continue
        lines.append(_case_line(report, verdicts))
        if any(verdicts is case for case in full):
            lines += _about(verdicts[0], repository)
            lines += [f"  {line}" for line in _failure_lines(verdicts, failures, repository, earlier_texts)]
        elif failures:
            lines.append(f"  {_short(failures)}{_likely(failures)}")
    return lines


def _told_in_full(report: Report, blocks: Sequence[Sequence[Verdict]], told: set[str]) -> list[Sequence[Verdict]]:
    """Return the failing cases that are told in full, and add their first divergences to those `told`.

    Of each first divergence that is the case with the surest name, one that most cases bear, the first of equals. That
    only some places are wrong is less than what may be wrong there; a name that few of the failing cases have is not
    sure, whatever speaks for it.
    """
    failing = [block for block in blocks if any(report.fails(verdict) for verdict in block)]
    firsts = [next((verdict for verdict in block if verdict.first_divergence), None) for block in failing]
    named = Counter(first.diagnosis[0].fault for first in firsts if first is not None and first.diagnosis)

    def surety(first: Verdict | None) -> tuple[int, int]:
        if first is None or not first.diagnosis:
            return 0, 0
        fault = first.diagnosis[0].fault
        if fault == "part":
            return 1, named[fault]
        sure = _guess(first.diagnosis)[0] == "likely" and named[fault] >= _USUAL * len(failing)
        return 3 if sure else 2, named[fault]

    found: dict[str, tuple[Verdict | None, Sequence[Verdict]]] = {}
    for first, block in zip(firsts, failing, strict=True):
        short = _short([verdict for verdict in block if report.fails(verdict)])
        if short in found:
            if surety(first) > surety(found[short][0]):
                found[short] = first, block
        elif short not in told and len(told) + len(found) < _FULL_BLOCKS:
            found[short] = first, block
    told.update(found)
    return [block for _, block in found.values()]


def _about(verdict: Verdict, repository: Repository) -> list[str]:
    """Return what a case is there to show."""
    about = repository.suite(verdict.suite).case(verdict.case).about
    return [f"  case: {about}"] if about else []


def _one_reason(report: Report, verdicts: Sequence[Verdict]) -> _Reason | None:
    """Return what all verdicts of a case say, its own name left out; None where they differ, passed or have values."""
    reasons = {(verdict.status, _reason(verdict, f"{verdict.suite}/<case>")) for verdict in verdicts}
    (status, reason), *others = reasons
    if others or not reason or status == "pass" or status in DIVERGED:
        return None
    return status, reason, report.fails(verdicts[0])


def _reason(verdict: Verdict, place: str) -> str:
    """Return what a verdict says, `place` standing for its suite and case."""
    return verdict.text.replace(f"{verdict.suite}/{verdict.case}", place)


def _common(report: Report, blocks: Sequence[Sequence[Verdict]]) -> dict[_Reason, list[Sequence[Verdict]]]:
    """Return the cases that share one reason, where these are all cases of the suite or many of them."""
    found: dict[_Reason, list[Sequence[Verdict]]] = {}
    for verdicts in blocks:
        key = _one_reason(report, verdicts)
        if key is not None:
            found.setdefault(key, []).append(verdicts)
    return {key: same for key, same in found.items() if len(same) > _SAME_REASON or len(same) == len(blocks) > 1}


def _told_once(key: _Reason, blocks: Sequence[Sequence[Verdict]], earlier_texts: set[str]) -> list[str]:
    """Tell what many cases of a suite have in common; a long text is told in full of the first suite only."""
    status, reason, failing = key
    points = {(verdict.case, verdict.checkpoint) for verdicts in blocks for verdict in verdicts}
    contracts = dict.fromkeys(verdicts[0].contract for verdicts in blocks)
    size = f"{_counted(len(points), 'checkpoint')} of {_counted(len({case for case, _ in points}), 'case')}"
    under = f" under {', '.join(contracts)}" if len(contracts) > 1 else ""
    demanded = ", and required" if failing and status == "unsupported" else ""
    head = f"{blocks[0][0].suite}: {size}{under} {status}{demanded}"
    lines = reason.splitlines()
    if len(lines) > 1 and status + reason not in earlier_texts:
        earlier_texts.add(status + reason)
        return [f"{head}:", *(f"  {line}" for line in lines)]
    return [f"{head}: {lines[-1].strip()}"]


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")


def printable(message: str) -> str:
    """Return a text with control characters and lone surrogates, which a candidate may have put there, escaped."""
    return "".join(
        c if c in "\n\t" or (c.isprintable() and not forbidden(c)) else c.encode("unicode_escape").decode()
        for c in message
    )


def forbidden(character: str) -> bool:
    """Say whether XML 1.0 forbids a character: a lone surrogate, or no character at all."""
    return "\ud800" <= character <= "\udfff" or character in "\ufffe\uffff"


def _case_line(report: Report, verdicts: Sequence[Verdict]) -> str:
    first = verdicts[0]
    counts = Report(report.candidate, verdicts).counts
    used = max((v.used for v in verdicts if v.status == "pass"), default=0.0)
    reason = f": {first.text}" if set(counts) == {"unsupported"} else ""
    share = f"; at most {used:.0%} of the tolerance used" if counts.get("pass") and len(counts) == 1 else ""
    if first.status == "pass" and first.statistics is None and first.text:  # what it said to refused inputs
        share = f"; it refused: {first.text.strip().splitlines()[-1]}"
    lacking = [verdict.checkpoint for verdict in verdicts if verdict.status == "unsupported"]
    names = f"; unsupported: {_some(lacking)}" if lacking and not reason else ""
    return f"{first.suite}/{first.case}/{first.contract}: {_count_text(counts)}{share}{reason}{names}"


def _count_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {status}" for status, number in counts.items()) or "nothing compared"


def _failure_lines(
    verdicts: Sequence[Verdict],
    failures: Sequence[Verdict],
    repository: Repository,
    earlier_texts: set[str],
) -> list[str]:
    """Tell the first divergence in full, and what is not a consequence of it; count the rest."""
    first = next((verdict for verdict in failures if verdict.first_divergence), None)
    diverged = next((verdict for verdict in failures if verdict.status in DIVERGED), None)
    lines: list[str] = []
    rest: list[Verdict] = []
    for verdict in failures:
        if verdict is first:
            lines += explain(verdict, repository, before=_before(verdicts, verdict))
        elif first is None and verdict is diverged:
            lines += explain(verdict, repository, before="the case diverged before it, at a checkpoint not selected")
        elif verdict.text and verdict.status not in DIVERGED:
            if (verdict.status + verdict.text) not in earlier_texts:
                earlier_texts.add(verdict.status + verdict.text)
                lines += _say_run(verdict) if verdict.status in RUN_STATUSES else explain(verdict, repository)
        else:
            rest.append(verdict)
    if rest:
        names = ", ".join(f"{verdict.checkpoint} ({verdict.status})" for verdict in rest[:6])
        lines.append(f"after it, {len(rest)} more: {names}{', …' if len(rest) > 6 else ''}")
    return lines


def _say_run(verdict: Verdict) -> list[str]:
    head = f"{verdict.suite}/{verdict.case}/{verdict.contract}: {verdict.status}"
    return [head, *(f"  {line}" for line in verdict.text.splitlines())]


def _before(verdicts: Sequence[Verdict], verdict: Verdict) -> str:
    """Say what is known of the checkpoints before the first divergence."""
    earlier = verdicts[: list(verdicts).index(verdict)]
    unknown = [other.checkpoint for other in earlier if other.status != "pass"]
    if not earlier:
        return "first divergence; it is the first checkpoint"
    if unknown:
        return f"first divergence; before it, not known: {_some(unknown)}"
    return "first divergence; all that was compared before it passed"


def explain(verdict: Verdict, repository: Repository, *, before: str = "") -> list[str]:
    """Return the lines that say what was found, what was allowed, where, and by which tolerance."""
    lines = [f"{verdict.name}: {verdict.status}{f' ({before})' if before else ''}"]
    statistics = verdict.statistics
    if verdict.status != "nonfinite" or statistics is None:  # else the text stands within a line below
        lines += [f"  {line}" for line in verdict.text.splitlines()]
    if statistics is None:
        return lines
    beyond = f"{statistics.mismatched} of {statistics.elements} elements beyond"
    place = _place(verdict, repository, statistics.worst)
    if verdict.status == "nonfinite":
        others = f"{statistics.mismatched - statistics.nonfinite} of the others are beyond their tolerance"
        lines.append(f"  {verdict.text}, of {statistics.elements} elements, first {place}; {others}")
    elif verdict.tests:
        lines += _sigma_lines(verdict, place, beyond)
    elif isinstance(verdict.tolerance, Tolerance) and math.isfinite(statistics.used):
        allowed = abs(statistics.golden or 0) * verdict.tolerance.rtol + verdict.tolerance.atol_rms * verdict.rms
        error = abs((statistics.candidate or 0) - (statistics.golden or 0))
        lines.append(f"  error {error:.3g} {place}, allowed {allowed:.3g}; rms {statistics.rms_abs:.3g}; {beyond}")
    else:
        lines.append(f"  {beyond}, the first {place}")
    lines.append(f"  candidate {_number(statistics.candidate)} where the golden is {_number(statistics.golden)}")
    lines += [f"  {line}" for line in _diagnosis_lines(verdict.diagnosis)]
    if verdict.status == "nonfinite":
        return lines  # no tolerance would let it pass
    if isinstance(verdict.tolerance, Limits):
        lines.append(f"  tolerance: {_source(verdict.tolerance, repository)}{_passing(verdict)}")
    elif verdict.tolerance is not None:
        passing = f"; it would pass at {statistics.used:.3g} times that" if 1 < statistics.used < math.inf else ""
        lines.append(
            f"  tolerance: {_source(verdict.tolerance, repository)}: rtol {verdict.tolerance.rtol:.3g},"
            f" atol {verdict.tolerance.atol_rms:.3g} of the golden's RMS {verdict.rms:.3g}{passing}"
        )
    return lines


def _sigma_lines(verdict: Verdict, place: str, beyond: str) -> list[str]:
    """Return what was found in sigma, the predicted standard deviation of a correct candidate's error."""
    statistics = verdict.statistics
    if statistics is None:
        return []
    tests = {test.name: test for test in verdict.tests}
    first = f"  error {_sigma(tests['max'])}, {place}; {beyond}"
    if math.isinf(tests["max"].value):
        first = f"  {beyond}, at a place where the golden is exactly 0: {place}"
    lines = [first, f"  rms {_sigma(tests['rms'])}"]
    if not tests["row"].passed and statistics.row is not None:
        several = statistics.row and math.prod(verdict.shape[:-1]) > 1
        row = f"the worst row, {statistics.row}" if several else "the only row"
        lines[1] += f"; {row}, {_sigma(tests['row'])}"
    if "signature" in tests and not tests["signature"].passed:
        share = f"{tests['signature'].value:.2f} (allowed {tests['signature'].limit:.2g})"
        lines.append(f"  each element is within its noise, but together they are {share} of what a mistake does")
    for name in ("gain", "bias"):
        if name in tests and not tests[name].passed and not tests["rms"].value > 10 * tests["rms"].limit:
            value = statistics.gain if name == "gain" else statistics.bias
            lines.append(f"  {name} {value:.3g}, which is {_sigma(tests[name])} of what noise makes of it")
    return lines


def _diagnosis_lines(found: Sequence[Diagnosis]) -> list[str]:
    """Tell what the values turned out to be, the likeliest first, and how far that is certain."""
    if not found:
        return []
    word, best = _guess(found)
    first = f"{word} one of: " if len(best) > 1 else f"{word} "
    leads = [first, *("or " if other in best else "less likely " if other.explained else "" for other in found[1:])]
    return [f"{lead}{diagnosis.fault}: {diagnosis.text}" for lead, diagnosis in zip(leads, found, strict=True)]


def _guess(found: Sequence[Diagnosis]) -> tuple[str, list[Diagnosis]]:
    """Return `likely` or `perhaps`, and what fits best: the first, and those that fit equally well.

    A catalogued fault is likely where it is there in a strength of about 1 and spares nothing that it changes. For a
    lower precision only the size of the errors speaks, unless values are numbers of it: that is told before, as grid;
    for another formula only their signs.
    """
    first, *others = found
    near = max(_NEAR_ONE, min(_STANDARD_ERRORS * first.uncertainty, _MOST_UNCERTAIN))
    doubtful = (
        first.spared
        or first.fault in ("precision", "formula")
        or (first.explained > 0 and abs(first.strength - 1) > near)
    )
    return "perhaps" if doubtful else "likely", [first, *(other for other in others if _as_good(first, other))]


def _as_good(first: Diagnosis, other: Diagnosis) -> bool:
    """Say whether two catalogued faults, as they are told, fit equally well."""
    if min(first.explained, other.explained) <= 0 or abs(first.strength - other.strength) > 0.005:
        return False
    return 1 - other.explained <= _AS_GOOD * (1 - first.explained) + 1e-6


def _source(tolerance: Tolerance | Limits, repository: Repository) -> str:
    """Return where a tolerance is written, and of an override what it is for."""
    path = repository.root / "tolerances.toml"
    try:
        patterns = _overrides(path, path.stat().st_mtime_ns).get(tolerance.source)
    except (OSError, UsageError):
        patterns = None
    return f"{tolerance.source.removesuffix(']')}: {patterns}]" if patterns else tolerance.source


@functools.lru_cache(maxsize=4)
def _overrides(path: Path, _changed: int) -> dict[str, str]:
    """Return the patterns of each override by the place where it is written."""
    return {
        row.source: ", ".join(
            f"{key} {patterns[key]}" for key in ("suite", "case", "checkpoint", "contract") if key in patterns
        )
        for patterns, row in read_tolerances(path).overrides
    }


def _sigma(test: Test) -> str:
    return f"{test.value:.3g} σ (allowed {test.limit:.3g})"


def _passing(verdict: Verdict) -> str:
    """Say at how many times the limits a failing output would pass."""
    return f"; it would pass at {verdict.used:.3g} times its limits" if 1 < verdict.used < math.inf else ""


def _place(verdict: Verdict, repository: Repository, index: tuple[int, ...] | None) -> str:
    """Return an index with the labels of its axes."""
    if index is None:
        return "nowhere"
    checkpoint = repository.suite(verdict.suite).case(verdict.case).checkpoint(verdict.checkpoint)
    labels = ", ".join(f"{label} {i}" for label, i in zip(checkpoint.axes, index, strict=False))
    return f"at {index}{f' ({labels})' if labels else ''}"


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.8g}"


def _short(failures: Sequence[Verdict]) -> str:
    first = next((verdict for verdict in failures if verdict.first_divergence), failures[0])
    if first.status in RUN_STATUSES or first.status.startswith("golden-"):
        return f"{first.status}: {first.text.splitlines()[-1] if first.text else 'no reason given'}"
    return f"{first.status}, first at {first.checkpoint}"


def _likely(failures: Sequence[Verdict]) -> str:
    """Name the mistake that was told in full of another case, or that is another one here."""
    first = next((verdict for verdict in failures if verdict.first_divergence), failures[0])
    if not first.diagnosis:
        return ""
    word, best = _guess(first.diagnosis)
    return f", {word} {' or '.join(diagnosis.fault for diagnosis in best)}"


def _notes(report: Report, repository: Repository) -> list[str]:
    """Tell what a candidate gave or said in vain, and where it is finer than it promised."""
    lines = []
    for place, names in report.extra.items():
        if any(v.status == "missing-output" and f"{v.suite}/{v.case}" == place for v in report.verdicts):
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            lines.append(f"note: {place}: not asked for and not compared: {shown}")
    return [*lines, *_unmatched(report, repository), *_finer(report)]


def _unmatched(report: Report, repository: Repository) -> list[str]:
    """Name the patterns of UNSUPPORTED that are those of no checkpoint: one list may be for many suites."""
    if not report.unsupported:
        return []
    suites = repository.suites.values()
    known = list(dict.fromkeys(point.name for suite in suites for case in suite.cases for point in case.checkpoints))
    shown = []
    for pattern in report.unsupported:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in known):
            close = difflib.get_close_matches(pattern, known, n=1)
            shown.append(f"{pattern!r}{f' (did you mean {close[0]!r}?)' if close else ''}")
    return [f"note: UNSUPPORTED names what is no checkpoint of any suite: {_some(shown)}"] if shown else []


def _finer(report: Report) -> list[str]:
    """Tell where a candidate computes more exactly than it promised."""
    notes = [verdict for verdict in report.verdicts if verdict.status == "pass" and verdict.statistics and verdict.text]
    if not notes:
        return []
    others = f" (and {len(notes) - 1} more checkpoints)" if len(notes) > 1 else ""
    return [f"note: {notes[0].name}{others}: {notes[0].text}"]


def _hints(report: Report) -> list[str]:
    lines = []
    first = next((verdict for verdict in report.verdicts if verdict.first_divergence), None)
    if first is not None:
        prefix = ".".join(first.checkpoint.split(".")[:-1])
        pattern = f"{first.suite}/{first.case}/{prefix + '.*' if prefix else first.checkpoint}"
        words = ["karat", "check", report.candidate, pattern, "--contract", first.contract]
        lines.append(f"hint: {shlex.join(words)} checks only this part")
    elif report.exit_code == 5:
        reasons = sorted({_reason(verdict, "<suite>/<case>") for verdict in report.verdicts if verdict.text})
        lines += [f"hint: nothing was compared: {reason}" for reason in reasons[:3]]
    return [*lines, *_missing_hint(report), *_export_hint(report)]


def _missing_hint(report: Report) -> list[str]:
    """Say where a candidate says what it does not provide."""
    missing = next((verdict for verdict in report.verdicts if verdict.status == "missing-output"), None)
    kind = report.candidate.partition(":")[0]
    if missing is None or kind == "null":
        return []
    listed = f'["{missing.checkpoint}"]'
    where = (
        f"UNSUPPORTED = {listed} in the module" if kind == "py" else f"{listed} in unsupported.json with its outputs"
    )
    return [f"hint: what a candidate does not provide it lists, as {where}"]


def _export_hint(report: Report) -> list[str]:
    """Say how a dump is begun, where there is none of what is asked for."""
    kind, _, folder = report.candidate.partition(":")
    lacking = [v for v in report.verdicts if v.status == "unsupported" and (report.exit_code == 5 or report.fails(v))]
    lacking = [verdict for verdict in lacking if verdict.text.startswith("there is no folder")]
    if kind != "dir" or not lacking:
        return []
    suites = list(dict.fromkeys(verdict.suite for verdict in lacking))
    chosen = suites if len(suites) <= _MOST_NAMES else ["*"]
    words = ["karat", "export", *chosen, "--to", folder, "--contract", lacking[0].contract]
    return [f"hint: {shlex.join(words)} writes the inputs; put the outputs of each case beside them"]


def _suite_sum(report: Report, blocks: Sequence[Sequence[Verdict]]) -> list[str]:
    """Sum up a suite of which several cases fail: the names that were found, by the number of their cases."""
    failing = {verdict.case for verdicts in blocks for verdict in verdicts if report.fails(verdict)}
    cases_of: dict[str, set[str]] = {}
    likely: set[str] = set()
    for verdict in (verdict for verdicts in blocks for verdict in verdicts):
        if verdict.first_divergence and verdict.diagnosis:
            word, best = _guess(verdict.diagnosis)
            for diagnosis in best:
                cases_of.setdefault(diagnosis.fault, set()).add(verdict.case)
                likely |= {diagnosis.fault} if word == "likely" else set()
    if len(failing) < 2 or not cases_of:
        return []
    alike: dict[frozenset[str], list[str]] = {}  # names that the same cases have
    for name, cases in sorted(cases_of.items(), key=lambda entry: -len(entry[1])):
        alike.setdefault(frozenset(cases), []).append(name)
    names = [f"{' or '.join(named[:_MOST_GUESSES])} in {len(cases)}" for cases, named in alike.items()]
    word = "likely" if likely & set(next(iter(alike.values()))) else "perhaps"
    number = len({verdicts[0].case for verdicts in blocks})
    more = ", …" if len(names) > _MOST_GUESSES else ""
    head = f"{blocks[0][0].suite}: {len(failing)} of {number} cases fail"
    return [f"{head}; {word} {', '.join(names[:_MOST_GUESSES])}{more}"]


def _sum_line(report: Report, outcomes: Sequence[Outcome]) -> str:
    word = {0: "PASS", 5: "NOTHING COMPARED", 3: "GOLDENS NOT USABLE"}.get(exit_code(report, outcomes), "FAIL")
    unsupported = " (unsupported is not checked; --require demands it)" if "unsupported" in report.counts else ""
    counted = f"{_count_text(report.counts)}{unsupported}{_first_text(report)}"
    return f"{word}: {report.candidate}: {counted}{_properties_text(outcomes)}"


def _properties_text(outcomes: Sequence[Outcome]) -> str:
    """Count the properties by what they came to."""
    words = Counter({"holds": "held"}.get(outcome.status, outcome.status) for outcome in outcomes)
    return f"; properties: {_count_text(words)}" if outcomes else ""


def _first_text(report: Report) -> str:
    """Name the checkpoint at which most cases diverge first."""
    firsts = Counter(verdict.checkpoint for verdict in report.verdicts if verdict.first_divergence)
    if not firsts:
        return ""
    checkpoint, number = firsts.most_common(1)[0]
    return f"; first divergence at {checkpoint} in {number} of {firsts.total()} diverging cases"


def findings_text(findings: Iterable[Finding]) -> str:
    """Return the gate's findings for people."""
    lines = [str(finding) for finding in findings]
    return "\n".join(
        [*lines, f"GATE CLOSED: {len(lines)} finding(s)"]
        if lines
        else ["gate open: goldens complete, intact and fresh"]
    )
