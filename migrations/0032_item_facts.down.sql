drop index items_facts;
