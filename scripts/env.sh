# The environment of a shell that runs nodes, tests or tools of this suite. Source it, in bash or zsh.
#
# A sourced ROS distribution stays in charge of ROS; without one, ROS comes from .venv. Values that you set
# yourself (Fast DDS profile, MUJOCO_GL) are kept.

if [ -n "${ZSH_VERSION:-}" ]; then
    eval '_apt_script=${(%):-%x}'
else
    _apt_script=${BASH_SOURCE[0]}
fi
APT_ROOT=$(cd "$(dirname "$_apt_script")/.." && pwd -P)
export APT_ROOT

# _apt_prepend VARIABLE FOLDER: put FOLDER first, once.
_apt_prepend() {
    eval "_apt_old=\${$1:-}"
    case ":$_apt_old:" in
        *":$2:"*) ;;
        *) eval "export $1=\$2\${_apt_old:+:\$_apt_old}" ;;
    esac
}

if [ ! -x "$APT_ROOT/.venv/bin/python" ]; then
    echo "env.sh: $APT_ROOT/.venv is missing; run 'make setup' first" >&2
    unset -f _apt_prepend
    unset _apt_script _apt_old
    return 1
fi

export VIRTUAL_ENV="$APT_ROOT/.venv"
_apt_prepend PATH "$VIRTUAL_ENV/bin"
hash -r 2>/dev/null || true

if [ -z "${ROS_DISTRO:-}" ]; then
    _apt_prepend AMENT_PREFIX_PATH "$VIRTUAL_ENV"
    _apt_prepend CMAKE_PREFIX_PATH "$VIRTUAL_ENV"
    _apt_prepend LD_LIBRARY_PATH "$VIRTUAL_ENV/lib"
    for _apt_libs in $(find "$VIRTUAL_ENV"/lib/python3*/site-packages -maxdepth 1 -name 'ros_*.libs'); do
        _apt_prepend LD_LIBRARY_PATH "$_apt_libs"
    done
    # The wheels restart Python once to set LD_LIBRARY_PATH; it is set, so they need not.
    export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
    unset _apt_libs
fi

if [ -z "${FASTRTPS_DEFAULT_PROFILES_FILE:-}" ]; then
    # As apt_bringup/graph.py decides: six segments of fastdds.xml, in kB.
    if [ "$(df -Pk /dev/shm | awk 'NR == 2 { print $4 }')" -ge 411648 ]; then
        export FASTRTPS_DEFAULT_PROFILES_FILE="$APT_ROOT/apt_bringup/config/fastdds.xml"
    else
        export FASTRTPS_DEFAULT_PROFILES_FILE="$APT_ROOT/apt_bringup/config/fastdds_small.xml"
    fi
fi
if [ -z "${DISPLAY:-}" ]; then
    export MUJOCO_GL="${MUJOCO_GL:-egl}"
fi

if [ -f "$APT_ROOT/install/local_setup.sh" ]; then
    _apt_prepend PATH "$APT_ROOT/install/bin"
    # colcon's scripts read variables that may be unset.
    case $- in *u*) _apt_nounset=1; set +u ;; *) _apt_nounset= ;; esac
    if [ -n "${ZSH_VERSION:-}" ]; then
        . "$APT_ROOT/install/local_setup.zsh"
    else
        . "$APT_ROOT/install/local_setup.bash"
    fi
    [ -n "$_apt_nounset" ] && set -u
    unset _apt_nounset
fi

unset -f _apt_prepend
unset _apt_script _apt_old
