"""Control groups: cgroup v2, v1, and the hybrid layout, behind one :class:`Manager`.

A cgroup is named by its path below each hierarchy's mount point, ``/podrt/pod<uid>/<container id>``. Which hierarchy
has a controller is looked up once; each controller's file knows how to write its limits in the v1 and v2 form.
"""

from podrt.linux.cgroup.devices import DEFAULT_RULES as DEFAULT_RULES
from podrt.linux.cgroup.devices import DeviceRule as DeviceRule
from podrt.linux.cgroup.hierarchy import Hierarchies as Hierarchies
from podrt.linux.cgroup.hierarchy import detect as detect
from podrt.linux.cgroup.limits import Limits as Limits
from podrt.linux.cgroup.limits import LimitsLike as LimitsLike
from podrt.linux.cgroup.manager import Manager as Manager
