# Sourced by deploy/start, shell, backup and restore, in the repository's folder, with the environment file as $1.
file=${1:-deploy/environment}
if [ ! -f "$file" ]; then
    echo "$file is not there: copy deploy/environment.example to it and fill it in" >&2
    exit 1
fi
mode=$(stat --format %a "$file")
if [ "${mode: -2}" != 00 ]; then
    echo "$file holds a password and has mode $mode, so others can read it: chmod 600 $file" >&2
    exit 1
fi
# What is written from here on, back-ups and own ECGs too, is its owner's alone.
umask 077
set -a
# shellcheck disable=SC1090
. "$file"
set +a
for name in ECG_HOME PGHOST PGPORT PGUSER PGPASSWORD ECG_HOST ECG_DAGSTER_PORT ECG_MLFLOW_PORT; do
    if [ -z "${!name:-}" ]; then
        echo "$file: $name is empty: fill it in, as deploy/environment.example says" >&2
        exit 1
    fi
done
ECG_HOME=$(realpath -m "$ECG_HOME")
export ECG_HOME ECG_BIN=$PWD/.venv/bin DAGSTER_HOME=$ECG_HOME/dagster
# Programs on this machine reach MLflow at the address where it listens; 0.0.0.0 means all addresses.
export MLFLOW_TRACKING_URI=http://${ECG_HOST/#0.0.0.0/127.0.0.1}:$ECG_MLFLOW_PORT MLFLOW_DISABLE_TELEMETRY=true

# Hold the lock of this home's servers, or end: file 3, which supervisord keeps open and its programs do not get.
lock_servers() {
    exec 3>>"$ECG_HOME/.servers.lock"
    if ! flock --nonblock 3; then
        echo "the servers of $ECG_HOME run already, or a restore does: stop them first" >&2
        exit 1
    fi
}
