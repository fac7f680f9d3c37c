#!/usr/bin/env bash
# A wheel and an sdist that build, agree, install in a clean environment and work there.
#   tests/smoke_wheel.sh PYTHON [WORK]    PYTHON has the package build; WORK is kept where it is given
set -euo pipefail
python="$(cd "$(dirname "$1")" && pwd)/$(basename "$1")"
root="$(cd "$(dirname "$0")/.." && pwd)"
work="${2:-$(mktemp -d)}"
mkdir -p "$work"
if [ $# -lt 2 ]; then trap 'rm -rf "$work"' EXIT; fi
cd "$work"
rm -rf dist

echo "== build: sdist, and the wheel from that sdist"
"$python" -m build --outdir dist "$root"
"$python" - dist <<'PY'
import sys, tarfile, zipfile
from pathlib import Path
(wheel,), (sdist,) = (list(Path(sys.argv[1]).glob(kind)) for kind in ("*.whl", "*.tar.gz"))
inside = set(zipfile.ZipFile(wheel).namelist())
wanted = {"staanet/py.typed", "staanet/constraints.txt", "staanet/recipes/quick.toml"}
assert wanted <= inside, f"the wheel lacks {sorted(wanted - inside)}"
audio = [name for name in inside if name.endswith((".wav", ".flac", ".mp3", ".ogg"))]
assert not audio, f"audio in the wheel: {audio}"
packed = {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}
wanted = {"LICENSE", "CITATION.cff", "constraints.txt", "recipes/quick.toml", "tests/conftest.py"}
assert wanted <= packed, f"the sdist lacks {sorted(wanted - packed)}"
print(f"{wheel.name}: {len(inside)} files; {sdist.name}: {len(packed)} files")
PY

echo "== install in a clean environment"
"$python" -m venv clean
bin="$work/clean/bin"
wheel="$(ls "$work"/dist/*.whl)"
"$bin/python" -m pip install --quiet --constraint "$root/constraints.txt" "torch" "$wheel"

echo "== smoke test, away from the sources"
mkdir -p empty && cd empty
"$bin/staanet" --version
"$bin/python" -c "import staanet; assert staanet.__version__ and '$root' not in staanet.__file__"
"$bin/staanet" run quick --dry-run
"$bin/staanet" doctor | tail -n 20
"$bin/python" - <<'PY'
import numpy as np, soundfile
rng = np.random.default_rng(0)
for label, hz in (("high", 1200), ("low", 200)):
    for speaker in range(6):
        t = np.arange(4000) / 16_000
        wave = 0.3 * np.sin(2 * np.pi * hz * (1 + 0.02 * speaker) * t) + 0.01 * rng.standard_normal(4000)
        import pathlib
        folder = pathlib.Path("tones") / label / f"s{speaker}"
        folder.mkdir(parents=True)
        soundfile.write(folder / "0.wav", wave, 16_000)
PY
"$bin/staanet" train-victim folder:tones emo18 --out victim --steps 4 --batch-size 4 --seconds 0.2
"$bin/staanet" attack tones/low --attack pgd --source victim --out fooled
"$bin/staanet" evaluate fooled --target victim --out results
"$bin/staanet" attack tones/low/s0/0.wav --out shipped  # the models inside, without any extra
echo "== the wheel is good"
