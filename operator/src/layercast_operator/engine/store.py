"""What the operator believes to exist: the newest version seen of every object, indexed by its resource.

Everything that tells of an object is merged here: watch events, answers to our own writes, listings. One
rule makes the order of arrival irrelevant: of one object (by uid) the highest version wins, and a deletion
is a version too. (An object that loses our label leaves the watch as if deleted; it comes back with a higher
version when the label does.) kopf drops events without saying so when a watch expires, so `sweep` removes
what a fresh listing no longer has.

It must never call the API, and never hand out anything mutable.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable

from layercast_operator.api.kinds import RESOURCE, Kind
from layercast_operator.api.observed import Key, Observed, Resource, RevisionRecord, Workload
from layercast_operator.engine.projection import ObjectId, Seen

_REMEMBERED_DELETIONS = 10_000


class Store:
    def __init__(self) -> None:
        self._seen: dict[ObjectId, Seen] = {}
        self._children: defaultdict[str, set[ObjectId]] = defaultdict(set)  # by the owner's uid
        self._deleted: OrderedDict[str, int] = OrderedDict()  # uid → version

    def observe(self, seen: Seen) -> None:
        before = self._seen.get(seen.id)
        newest = max(self._deleted.get(seen.uid, 0), before.version if before is not None else 0)
        if seen.version <= newest:
            return
        if before is not None:
            self._unlink(before)
        self._seen[seen.id] = seen
        if seen.id.kind is not RESOURCE and seen.owner_uid:
            self._children[seen.owner_uid].add(seen.id)

    def forget(self, gone: Seen) -> None:
        self._deleted[gone.uid] = max(gone.version, self._deleted.get(gone.uid, 0))
        if len(self._deleted) > _REMEMBERED_DELETIONS:
            self._deleted.popitem(last=False)
        before = self._seen.get(gone.id)
        if before is not None and before.uid == gone.uid and before.version <= gone.version:
            self._unlink(before)
            del self._seen[gone.id]

    def sweep(self, before: Iterable[Seen], listed: Collection[str]) -> list[Seen]:
        """Forgets what was seen before a listing began and is not in it; returns that.

        What has changed since the listing began is newer than the listing, so it stays.
        """
        gone = [seen for seen in before if seen.uid not in listed and self._seen.get(seen.id) is seen]
        for seen in gone:
            self.forget(seen)
        return gone

    def of_kind(self, kind: Kind) -> list[Seen]:
        return [seen for seen in self._seen.values() if seen.id.kind is kind]

    def get(self, id: ObjectId) -> Seen | None:
        return self._seen.get(id)

    def resource(self, key: Key) -> Resource | None:
        seen = self._seen.get(ObjectId(RESOURCE, *key))
        return seen.content if seen is not None and isinstance(seen.content, Resource) else None

    def children(self, owner_uid: str) -> list[Seen]:
        """What the resource controls, in a stable order."""
        ids = self._children.get(owner_uid, set())
        return sorted((self._seen[id] for id in ids), key=lambda seen: (seen.id.kind.plural, seen.id.name))

    def observed(self, owner_uid: str) -> Observed:
        # What is being deleted is as good as gone, and must be made anew under its name later.
        children = [child for child in self.children(owner_uid) if not child.deleting]
        contents = [child.content for child in children]
        workloads = tuple(each for each in contents if isinstance(each, Workload))
        return Observed(
            workloads=workloads,
            records=tuple(each for each in contents if isinstance(each, RevisionRecord)),
            serving_revision=next((child.serves for child in children if child.serves), None),
            revisions=frozenset(workload.revision for workload in workloads),
        )

    def _unlink(self, seen: Seen) -> None:
        siblings = self._children.get(seen.owner_uid)
        if siblings is not None:
            siblings.discard(seen.id)
            if not siblings:
                del self._children[seen.owner_uid]
