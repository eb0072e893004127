"""karat freezes what a trusted reference computes and says whether another implementation computes the same."""

from karat.inputs import Dyadic as Dyadic
from karat.inputs import Fine as Fine
from karat.inputs import Integers as Integers
from karat.inputs import Literal as Literal
from karat.inputs import Recipe as Recipe
from karat.inputs import Stored as Stored
from karat.invariances import causality as causality
from karat.invariances import padding as padding
from karat.invariances import repeatable as repeatable
from karat.invariances import rows_apart as rows_apart
from karat.suites import Case as Case
from karat.suites import Checkpoint as Checkpoint
from karat.suites import Property as Property
from karat.suites import Suite as Suite

__version__ = "0.1.0"
