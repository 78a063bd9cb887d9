"""Write the files of a new model that trains at once: `make new NAME=my_model KIND=classifier`."""

import keyword
import re
import sys
from pathlib import Path

from src.kindling.errors import InputError, nearest
from src.kindling.layout import CONF, command_line

TEMPLATES = Path(__file__).with_name("templates")  # one folder per kind, for a model named example
FILES = {
    "model.py.txt": "src/models/{name}.py",
    "data.py.txt": "src/data/{name}.py",
    "model.yaml": "conf/model/{name}.yaml",
    "data.yaml": "conf/data/{name}.yaml",
    "test.py.txt": "tests/models/test_{name}.py",
}
KINDS = {
    "classifier": "features -> one of several classes, rows in memory",
    "regressor": "features -> values, rows in memory",
    "images": "images -> classes, a Dataset of your own with augmentation, BatchNorm",
    "tokens": "a language model: text -> the next character, and predict continues a prompt",
    "lightning": "a LightningModule and a LightningDataModule of your own, with torch's DataLoader",
    "gan": "a generator and a discriminator: manual optimization with two optimizers",
}
YAML_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "none", "default"}


def main(root: Path = CONF.parent) -> None:
    """Write the files for the name and kind on the command line; without any, list the kinds."""
    name, kind = [*(word.strip() for word in sys.argv[1:]), "", ""][:2]
    if not name and not kind:
        print("make new NAME=my_model KIND=KIND writes a model that trains at once. Kinds:")
        print("\n".join(f"  {kind:<12} {what}" for kind, what in KINDS.items()))
        return
    check_kind(kind)
    check_name(name, root)
    for path in write(root, name, kind):
        print(f"wrote {path}")
    if set_default(root, name):
        print("edited conf/train.yaml: this is the model that is trained when none is named")
    print(f"train it:   {command_line('train', model=name)}")
    print(f"edit first: src/data/{name}.py, where the rows come from; then src/models/{name}.py")


def check_kind(kind: str) -> None:
    """Refuse a kind without templates."""
    if kind not in KINDS:
        raise InputError(f"KIND={kind}: there is no such kind{nearest(kind, list(KINDS))}")


def check_name(name: str, root: Path) -> None:
    """Refuse a name that is invalid or taken in Python, YAML or this project."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise InputError(f"NAME={name}: use lowercase letters, digits and _: my_model")
    if keyword.iskeyword(name) or name in YAML_WORDS:
        raise InputError(f"NAME={name}: reserved in Python or YAML; try {name}_model")
    if name == "example" or name in _stems_of_the_engine(root):
        raise InputError(f"NAME={name}: the engine uses this name; try {name}_model")
    for place in FILES.values():
        path = place.format(name=name)
        if (root / path).exists():
            raise InputError(f"NAME={name}: {path} already exists; try {name}_2")


def _stems_of_the_engine(root: Path) -> set[str]:
    paths = (root / "src" / "kindling").rglob("*.py")
    return {path.parent.name if path.stem == "__init__" else path.stem for path in paths}


def write(root: Path, name: str, kind: str) -> list[str]:
    """Write the files of a kind under a name, and return their paths."""
    title = "".join(part.capitalize() for part in name.split("_"))
    written = []
    for template, place in FILES.items():
        text = (TEMPLATES / kind / template).read_text(encoding="utf-8")
        path = root / place.format(name=name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:  # never over a file that exists
            file.write(re.sub(r"\bexample\b", name, text.replace("Example", title)))
        written.append(place.format(name=name))
    return written


def set_default(root: Path, name: str) -> bool:
    """Make a model the default of `train` where there is none yet, and return whether it is."""
    path = root / "conf" / "train.yaml"
    before = path.read_text(encoding="utf-8")
    after = before.replace("  - model: ???", f"  - model: {name}")
    path.write_text(after, encoding="utf-8")
    return after != before


if __name__ == "__main__":
    from src.kindling.cli.command import one_line_errors

    with one_line_errors():
        main()
