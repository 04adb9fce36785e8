#!/usr/bin/env bash
# Puts a built site into the folder of its version on the branch gh-pages, and writes the list of all versions.
#
#   .github/publish_site.sh SITE VERSION URL     SITE: the built pages; URL: where the branch is published
set -euo pipefail
site=$1 version=$2 url=$3
pages=$(mktemp -d)
git worktree add --quiet --detach "$pages"
trap 'git worktree remove --force "$pages"' EXIT
if git fetch --quiet origin +gh-pages:refs/site/published; then
  git -C "$pages" checkout --quiet --detach refs/site/published
else  # the first time
  git -C "$pages" checkout --quiet --orphan gh-pages
  git -C "$pages" rm -rfq .
fi
rm -rf "${pages:?}/$version"
cp -r "$site" "$pages/$version"
touch "$pages/.nojekyll"

# Newest first; the newest release is the one that visitors get.
python3 - "$pages" "$url" <<'PYTHON'
import json, re, sys
from pathlib import Path

pages, url = Path(sys.argv[1]), sys.argv[2]
releases = sorted(
    (path.name for path in pages.glob("v*") if path.is_dir()),
    key=lambda name: [int(part) for part in re.findall(r"\d+", name)],
    reverse=True,
)
shown = [{"version": name, "url": f"{url}/{name}/"} for name in [*releases, "main"] if (pages / name).is_dir()]
shown[0]["preferred"] = True
(pages / "versions.json").write_text(json.dumps(shown, indent=2) + "\n")
first = shown[0]["version"]
refresh = f'<meta http-equiv="refresh" content="0; url={first}/">'
(pages / "index.html").write_text(f'<!doctype html>{refresh}<a href="{first}/">cenote</a>\n')
PYTHON

git -C "$pages" add --all
git -C "$pages" -c user.name=site -c user.email=site@users.noreply.github.com commit --quiet --allow-empty --message "site: $version"
git -C "$pages" push --quiet origin HEAD:gh-pages
