#!/bin/sh
# The RUN steps that the images have in common, in their build stages; the working directory is the context.
#
#   build.sh packages NAME LOCK   /opt/venv with what docker/requirements/NAME.txt lists, by the hashes in LOCK
#   build.sh project              the project itself into it, and its files once more, by the same paths, into /opt/project
#
# An image takes the packages as one layer and /opt/project as another, so that a release without new packages is a few megabytes.
#
# UV_* and PIP_* (an index, a CA bundle) may be given as build arguments or by the builder's own configuration.
set -eu
tools=/opt/build

case "$1" in
    packages)
        python3 -m venv "$tools"
        "$tools/bin/pip" install --quiet --no-cache-dir --disable-pip-version-check --no-deps --require-hashes \
            -r docker/requirements/build.txt
        "$tools/bin/uv" venv --quiet --no-python-downloads --python "$(command -v python3)" /opt/venv
        "$tools/bin/uv" pip install --quiet --no-deps --require-hashes --link-mode copy ${COMPILE:+--compile-bytecode} \
            --python /opt/venv/bin/python -r "docker/requirements/$2.txt" --constraint "$3"
        find /opt/venv -depth -type d -path '*/numpy/*' -name tests -exec rm -rf {} +
        # What only tests, compilers and debuggers read, and colours for every language but Python: a tenth of the chat
        # service's image. Libraries that a wheel brings along (NAME.libs) were patched in a way that strip breaks.
        if [ "$2" = chat ]; then
            find /opt/venv -depth -type d \( -name tests -o -path '*/numpy/f2py' \) -exec rm -rf {} +
            find /opt/venv -name '*.so' ! -path '*.libs/*' -exec strip --strip-unneeded {} +
            find /opt/venv -type f \( -name '*.pyi' -o -name '*.pxd' -o -name '*.h' \) -delete
            find /opt/venv -path '*/pygments/lexers/*' ! -name '_mapping.py' ! -name '__init__.py' ! -name 'python.py' -delete
        fi
        ;;
    project)
        touch /tmp/before
        "$tools/bin/pip" wheel --quiet --no-deps --no-build-isolation --disable-pip-version-check --wheel-dir /tmp/dist .
        "$tools/bin/uv" pip install --quiet --no-deps --link-mode copy ${COMPILE:+--compile-bytecode} \
            --python /opt/venv/bin/python /tmp/dist/*.whl
        mkdir /opt/project
        cd /opt/venv
        find . -type f -cnewer /tmp/before -exec cp --parents --preserve=mode,timestamps --target-directory=/opt/project {} +
        ;;
    *)
        echo "build.sh packages NAME LOCK | project" >&2
        exit 2
        ;;
esac
