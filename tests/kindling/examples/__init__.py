"""Small models with their data, for the tests of the engine: they need none of a project's own.

tests/kindling/conf/ adds their YAMLs to conf/. Each has what another lacks:

    quadrants  classes; several steps per epoch, and an execution of several epochs
    line       values; one step per epoch, on all rows, in double precision
    teacher    values; many steps per epoch, an execution of a part of it; maybe no validation
"""
