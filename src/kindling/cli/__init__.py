"""The command line: parsing, composition, sweeps, and checks of conf/."""
