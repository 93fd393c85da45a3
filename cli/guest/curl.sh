#!/bin/sh
# curl [-s] [-o FILE] [-X POST] [-d DATA] URL...: the little of curl that asks the metadata service, done by
# busybox's wget.
file=-
post=
while [ $# -gt 0 ]; do
    case $1 in
    -V | --version)
        echo "curl of the tiny guest: $(busybox | head -n 1)"
        exit 0
        ;;
    -o | --output)
        file=$2
        shift
        ;;
    -d | --data)
        post=1
        data=$2
        shift
        ;;
    -X | --request)
        case $2 in
        GET) ;;
        POST) post=1 ;;
        *)
            echo "curl: the tiny guest knows no method $2" >&2
            exit 2
            ;;
        esac
        shift
        ;;
    -s | -f | -S | -sS | -fsS | --silent | --fail) ;;
    -*)
        echo "curl: the tiny guest knows no option $1" >&2
        exit 2
        ;;
    *) break ;;
    esac
    shift
done
if [ $# -eq 0 ]; then
    echo "curl: no URL" >&2
    exit 2
fi
for url in "$@"; do
    # this busybox's wget has no time limit of its own
    if [ -n "$post" ]; then
        timeout 20 wget -q -O "$file" --post-data "${data-}" "$url" || exit 22
    else
        timeout 20 wget -q -O "$file" "$url" || exit 22
    fi
done
