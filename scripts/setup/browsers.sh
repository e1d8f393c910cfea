#!/usr/bin/env bash
# Makes sure that Chromium with its driver and Firefox are there: Debian's, or those that WEBLORA_CHROME, WEBLORA_CHROMEDRIVER
# and WEBLORA_FIREFOX name. WEBLORA_BROWSERS=chrome (or firefox) asks for one only.
. "$(dirname "$0")/lib.sh"

# need ENVIRONMENT_VARIABLE DEFAULT_PATH DEBIAN_PACKAGE
need() {
    local given=${!1:-}
    if [ -n "$given" ]; then
        [ -x "$given" ] || die "$given (named by $1)" "a program at that path, or unset $1"
    elif [ ! -x "$2" ]; then
        have apt-get || die "$3" "this system's package manager, and set $1 to the program's path"
        packages+=("$3")
    fi
}

packages=()
for browser in ${WEBLORA_BROWSERS:-chrome firefox}; do
    case $browser in
    chrome)
        need WEBLORA_CHROME /usr/bin/chromium chromium
        need WEBLORA_CHROMEDRIVER /usr/bin/chromedriver chromium-driver
        ;;
    firefox) need WEBLORA_FIREFOX /usr/bin/firefox-esr firefox-esr ;;
    *) die "a browser called '$browser'" "WEBLORA_BROWSERS=\"chrome firefox\" or one of the two" ;;
    esac
done
[ ${#packages[@]} -eq 0 ] || apt_install "${packages[@]}"
