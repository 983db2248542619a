if [ "$1" -eq 1 ]; then
    chown root:convoke /etc/convoke
    chmod 0750 /etc/convoke
    if [ ! -e /etc/convoke/admin-token ]; then
        head -c 32 /dev/urandom | base64 | install -m 0640 -g convoke /dev/stdin /etc/convoke/admin-token
    fi
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
