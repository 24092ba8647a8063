"""The small server, for runs that also have artifacts and alerts: `artifacts` has their files by type and name."""

import base64
import hashlib
import json

from wandb_server import Server


class ArtifactServer(Server):
    """Takes artifacts and alerts as well.  It refuses artifacts of the type `refused`."""

    def __init__(self, refused=None):
        super().__init__()
        self.made, self.alerts, self.refused = {}, [], refused

    @property
    def artifacts(self):
        """By type: the content of each file by its name in the artifact."""
        found = {}
        for identity, made in self.made.items():
            manifest = json.loads(self.files[identity, "wandb_manifest.json"])
            found[made["artifactTypeName"]] = {name: self.content(entry) for name, entry in manifest["contents"].items()}
        return found

    def content(self, entry):
        """An entry's bytes, which must be of its digest and length."""
        contents = (each for (_, name), each in self.files.items() if name.startswith("artifact/"))
        (found,) = {each for each in contents if base64.b64encode(hashlib.md5(each).digest()).decode() == entry["digest"]}
        assert len(found) == entry["size"]
        return found

    def answer(self, path, content):
        told, query = content.setdefault("variables", {}), content.get("query", "")
        given = told.get("input", {})
        if "notifyScriptableRunAlert" in query:
            self.alerts.append(told)
            return {"data": {"notifyScriptableRunAlert": {"success": True}}}
        if "query ArtifactByID" in query:
            return {"data": {"artifact": self.committed(told["id"])}}
        if "query ArtifactType" in query:
            return {"data": {"project": {"artifact": None}}}
        if "createArtifact(" in query:
            if given["artifactTypeName"] == self.refused:
                return {"errors": [{"message": "no such artifacts"}]}
            identity = f"artifact-{len(self.made)}"
            self.made[identity] = given
            sequence = {"id": "s", "name": "s", "latestArtifact": None}
            artifact = {"id": identity, "state": "PENDING", "artifactSequence": sequence}
            return {"data": {"createArtifact": {"artifact": artifact}}}
        if "createArtifactManifest(" in query:
            identity = told["artifactID"]
            file = {"id": "f", "uploadUrl": f"{self.address}/{identity}/wandb_manifest.json", "uploadHeaders": []}
            return {"data": {"createArtifactManifest": {"artifactManifest": {"id": identity, "file": file}}}}
        if "createArtifactFiles(" in query:
            edges = [{"node": self.place_of(each)} for each in given["artifactFiles"]]
            return {"data": {"createArtifactFiles": {"files": {"edges": edges}}}}
        if "commitArtifact(" in query:
            return {"data": {"commitArtifact": {"artifact": {"id": told["artifactID"], "digest": "d"}}}}
        return super().answer(path, content)

    def committed(self, identity):
        """What a client learns of an artifact that it has just sent."""
        return {
            "__typename": "Artifact", "id": identity, "versionIndex": 0, "description": None, "metadata": None, "tags": [],
            "artifactSequence": {"__typename": "ArtifactSequence", "name": "a", "project": None}, "historyStep": None,
            "artifactType": {"name": self.made[identity]["artifactTypeName"]}, "ttlDurationSeconds": -1, "size": 1,
            "ttlIsInherited": False, "state": "COMMITTED", "digest": "d", "commitHash": None, "fileCount": 1,
            "createdAt": "2026-01-01T00:00:00", "updatedAt": None, "aliases": [],
        }  # fmt: skip

    def place_of(self, file):
        """Where a file goes."""
        return {
            "id": "f", "name": file["name"], "displayName": file["name"], "uploadHeaders": [], "uploadMultipartUrls": None,
            "storagePath": file["name"], "uploadUrl": f"{self.address}/{file['artifactID']}/artifact/{file['name']}",
            "artifact": {"id": file["artifactID"]},
        }  # fmt: skip
