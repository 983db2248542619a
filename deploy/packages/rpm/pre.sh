getent group convoke >/dev/null || groupadd --system convoke
getent passwd convoke >/dev/null ||
    useradd --system --gid convoke --home-dir /var/lib/convoke --no-create-home --shell /sbin/nologin --comment Convoke convoke
