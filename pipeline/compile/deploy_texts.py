"""What the deploy folder says: a unit for systemd, a Dockerfile, and its README.

``$bundle`` stands for the bundle's file, ``$versions`` for rows of packages and their versions. Kept as Python, so that
a run knows that it is stale when they change.
"""

from collections.abc import Mapping
from types import MappingProxyType

_SERVICE = """\
# A camera's bundle under systemd. Put this folder at /opt/npu-run, make the environment there, trust your keys:
#   python3 -m venv /opt/npu-run/env && /opt/npu-run/env/bin/pip install -r /opt/npu-run/requirements-video.txt \\
#       -r /opt/npu-run/requirements-signing.txt
#   mkdir /etc/npu-run/keys    (and copy your NAME.pub there)
#   cp npu-run.service /etc/systemd/system/ && systemctl enable --now npu-run
# A new version: put its file in the place of the old one; it takes over between two frames once it passed its tests.
# Another source or other options: systemctl edit npu-run, with [Service], Environment=SOURCE=... and OPTIONS=...
# (as OPTIONS=--serve 127.0.0.1:8080 --sink mqtt://broker/shop; others see the page with NPU_RUN_TOKEN set too)

[Unit]
Description=Detection on $bundle
After=network-online.target
Wants=network-online.target

[Service]
Environment=SOURCE=0
Environment=OPTIONS=
ExecStart=/opt/npu-run/env/bin/python /opt/npu-run/npu-run.pyz /opt/npu-run/$bundle --source $${SOURCE} \\
    --trust /etc/npu-run/keys --state /var/lib/npu-run --watch $$OPTIONS
WorkingDirectory=/var/lib/npu-run
StateDirectory=npu-run
DynamicUser=yes
SupplementaryGroups=video
Restart=always
RestartSec=5
MemoryMax=1G
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""

_DOCKERFILE = """\
# docker build -t npu-run . && docker run --rm npu-run selftest $bundle
# Add requirements-video.txt for videos and cameras, requirements-signing.txt for --trust.
FROM python:3.11-slim
WORKDIR /opt/npu-run
COPY requirements*.txt ./
RUN pip install --no-cache-dir -r requirements.txt
COPY $bundle npu-run.pyz ./
RUN useradd --system --create-home npu-run
USER npu-run
ENTRYPOINT ["python", "npu-run.pyz"]
CMD ["info", "$bundle"]
"""

_README = """\
# $bundle on a device

Everything here but `README.md` is needed to run; Python 3.11 or newer is all the device must have.

```sh
python3 -m venv env
env/bin/pip install -r requirements.txt
env/bin/python npu-run.pyz info $bundle
env/bin/python npu-run.pyz selftest $bundle
```

| file | what |
|---|---|
| `$bundle` | the bundle: programs, models, pre- and post-processing, golden vectors |
| `npu-run.pyz` | the runtime: `python npu-run.pyz --help` |
| `requirements.txt` | numpy and onnxruntime, enough for `info`, `selftest` and `.npy` frames |
| `requirements-video.txt` | also images, video, cameras, tracking and counting |
| `requirements-signing.txt` | also `--trust KEYS`, which refuses bundles that are not yours |
| `requirements-mqtt.txt` | also `--sink mqtt://HOST/PREFIX` |
| `npu-run.service` | runs it for good under systemd; how to install it stands in its first lines |
| `Dockerfile` | an image of it: `docker build -t npu-run .` |

## On 64-bit ARM

Nothing is compiled on the device: under Python 3.11, with glibc 2.28 (Debian 10) or newer, pip finds a wheel for Linux
on aarch64 for everything in the requirements files. For `requirements.txt` these are all:

| package | version |
|---|---|
$versions
"""

TEXTS: Mapping[str, str] = MappingProxyType(
    {"npu-run.service": _SERVICE, "Dockerfile": _DOCKERFILE, "README.md": _README}
)
"""Templates (``string.Template``) by the name of the file."""
