import time, pytest
from django.db import connections
from django.db.models import *
from tests.testapp.models import *
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])
def test_probe(db_alias):
    n=60000
    CompositeRow.objects.using(db_alias).bulk_create([CompositeRow(tenant="t%d"%(i%3), number=i) for i in range(n)], batch_size=5000)
    c=connections[db_alias]
    if db_alias=="postgres": c.cursor().execute("analyze")
    q=CompositeRow.objects.using(db_alias).filter(pk__gt=("t1",500)).order_by("pk")[:100]
    print(q.query); print(q.explain())
    q=CompositeRow.objects.using(db_alias).filter(pk__gt=("t1",500)).order_by("tenant","number")[:100]
    print(q.explain())
    keys=[("t%d"%(i%3),i) for i in range(0,40000,4)]
    for k in (100,1000,10000):
        try:
            t=time.time(); print(k,len(list(CompositeRow.objects.using(db_alias).filter(pk__in=keys[:k]))), time.time()-t)
        except Exception as e: print(k,e)
        t=time.time()
        with c.cursor() as cur:
            cur.execute("select * from testapp_compositerow where (tenant,number) in (values %s)"%",".join(["(%s,%s)"]*k), [v for key in keys[:k] for v in key])
            print(len(cur.fetchall()), time.time()-t)
            cur.execute(("explain " if db_alias=="postgres" else "explain query plan ")+"select * from testapp_compositerow where (tenant,number) in (values %s)"%",".join(["(%s,%s)"]*k), [v for key in keys[:k] for v in key])
            print([r for r in cur.fetchall()][:8])
    row=lambda *x: Func(*x, template="(%(expressions)s)", output_field=BooleanField())
    from django.db.models.lookups import GreaterThan
    q=CompositeRow.objects.using(db_alias).filter(GreaterThan(row(F("tenant"),F("number")), row(Value("t1"),Value(500)))).order_by("tenant","number")
    print(q.query, q[:100].explain())
