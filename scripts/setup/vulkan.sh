#!/usr/bin/env bash
# Makes sure that some Vulkan adapter answers: a GPU's own driver if there is one, otherwise Mesa's lavapipe, Vulkan on the CPU.
# macOS has Metal and needs nothing.
. "$(dirname "$0")/lib.sh"

[ "$(uname -s)" != Darwin ] || exit 0

has_loader() { { ldconfig -p 2>/dev/null || /sbin/ldconfig -p 2>/dev/null; } | grep 'libvulkan\.so\.1' >/dev/null; }

has_driver_file() {
    [ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] && return 0
    local folder
    for folder in /etc/vulkan /usr/share/vulkan /usr/local/share/vulkan /usr/local/etc/vulkan "${XDG_DATA_HOME:-$HOME/.local/share}/vulkan"; do
        compgen -G "$folder/icd.d/*.json" >/dev/null && return 0
    done
    return 1
}

adapters() { vulkaninfo --summary 2>/dev/null | sed -n 's/^[[:space:]]*deviceName[[:space:]]*= //p'; }

# vulkaninfo has the last word where it is installed; without it a loader and a driver's description are taken on trust.
answers() {
    has_loader && has_driver_file || return 1
    ! have vulkaninfo || [ -n "$(adapters)" ]
}

# Debian's newer Mesa, from the backports of the mirror that this machine already uses.
add_backports() {
    local codename uri source=/etc/apt/sources.list.d/weblora-backports.list
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [ "$codename" = bookworm ] || return 1
    apt_update || return 1
    if ! apt-cache policy | grep "n=$codename-backports" >/dev/null; then
        # shellcheck disable=SC2016  # apt's own variables
        uri=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' | awk -v c="$codename" '$1 == c { print $2; exit }')
        [ -n "$uri" ] || return 1
        say "adding $codename-backports for a newer Mesa ($source)"
        echo "deb $uri $codename-backports main" | as_root tee "$source" >/dev/null
        rm -f "$TOOLS/apt-updated"
        if ! apt_update; then
            as_root rm -f "$source"
            return 1
        fi
    fi
}

answers && exit 0

install="apt-get install mesa-vulkan-drivers libvulkan1 vulkan-tools (as root)"
have apt-get || die "a Vulkan driver" "this system's package manager: the GPU's driver, or Mesa's lavapipe, and the Vulkan loader"
can_be_root || die "a Vulkan driver" "$install"
say "no Vulkan adapter answers yet"
apt_install libvulkan1 vulkan-tools
if ! answers; then
    if add_backports; then
        apt_install -t bookworm-backports mesa-vulkan-drivers
    else
        apt_install mesa-vulkan-drivers
    fi
fi
answers || die "a Vulkan adapter that answers (the driver is installed; vulkaninfo lists none)" "$install; then see vulkaninfo --summary"
say "Vulkan adapter: $(adapters | paste -sd ';' -)"
